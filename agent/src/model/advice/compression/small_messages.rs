//! Messages that are too small to gain from compression.

use super::left_with;
use crate::document::{Ceiling, Kind, Part};
use crate::model::advice::what_if::{Change, part};
use crate::model::advice::{Known, Proposal};
use crate::report::format::{percent, significant};

/// Bytes of a message from which compression may pay.
const SMALL: f64 = 64.0;

pub(super) fn advise(known: &Known<'_>, evidence: &str) -> Option<Proposal> {
    let mix = known.rates.mix()?;
    let payload = mix.message_payload().filter(|payload| *payload < SMALL)?;
    // How large they are uncompressed cannot be seen. Those that this is about have less than 64 bytes, and grow to that at most.
    let growth = 8.0 * (SMALL - payload) * mix.messages_per_second;
    let heavier = |ceiling: &Ceiling| {
        part(ceiling, Part::Application).filter(|_| ceiling.kind == Kind::Bandwidth)?;
        Some(Change::saving(ceiling, Part::Application, -growth))
    };
    let mut changes = left_with(known, 0.0);
    changes.extend(known.ceilings.iter().filter_map(heavier));
    Some(Proposal {
        id: "do-not-compress-small-messages",
        action: "do not compress messages under 64 bytes, and allocate contexts for the first larger one"
            .into(),
        evidence: format!(
            "{evidence}; a message has {} bytes on average as sent, {} are compressed; counted as if all had under 64 bytes and \
             grew to that",
            significant(payload),
            percent(mix.compressed_share()?)
        ),
        changes,
    })
}
