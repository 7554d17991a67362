//! Compression that was negotiated and is hardly used. How large a compressed message was before cannot be seen; where hardly
//! any is compressed, sizes are what they seem.

use super::left_with;
use crate::model::advice::{Known, Proposal};
use crate::report::format::{percent, significant};

/// A share of compressed messages (RSV1) below which contexts are kept for nothing.
const HARDLY: f64 = 0.01;
/// Bytes of a message from which compression may pay.
const SMALL: f64 = 64.0;

pub(super) fn advise(known: &Known<'_>, evidence: &str) -> Option<Proposal> {
    let mix = known.rates.mix()?;
    let share = mix.compressed_share().filter(|share| *share < HARDLY)?;
    let payload = mix.message_payload()?;
    let (id, why) = if payload < SMALL {
        ("do-not-compress-small-messages", "messages are under 64 bytes, too small to gain from it")
    } else {
        ("stop-unused-compression", "hardly any message is compressed, as where data are compressed already")
    };
    Some(Proposal {
        id,
        action: format!("do not negotiate permessage-deflate: {why}"),
        evidence: format!(
            "{evidence}; {} of the messages are compressed, and a message has {} bytes on average",
            percent(share),
            significant(payload)
        ),
        changes: left_with(known, 0.0),
    })
}
