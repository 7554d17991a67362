//! Compression that was negotiated and is hardly used.

use super::left_with;
use crate::model::advice::{Known, Proposal};
use crate::report::format::{percent, significant};

/// A share of compressed messages (RSV1) below which contexts are kept for nothing.
const HARDLY: f64 = 0.05;

pub(super) fn advise(known: &Known<'_>, evidence: &str) -> Option<Proposal> {
    let mix = known.rates.mix()?;
    let share = mix.compressed_share().filter(|share| *share < HARDLY)?;
    Some(Proposal {
        id: "stop-unused-compression",
        action: "do not negotiate permessage-deflate: hardly any message is compressed".into(),
        evidence: format!(
            "{evidence}; {} of the messages are compressed, and a message has {} bytes on average",
            percent(share),
            significant(mix.message_payload()?)
        ),
        changes: left_with(known, 0.0),
    })
}
