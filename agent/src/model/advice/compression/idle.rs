//! Contexts of connections that carry nothing.

use super::left_with;
use crate::model::advice::{Known, Proposal};
use crate::report::format::{latency, percent, span};

/// How long a connection is silent until its contexts go, in seconds.
const QUIET: f64 = 10.0;
/// How long one must have watched to say that a connection is silent, in seconds.
const LONG_ENOUGH: f64 = 60.0;
/// With more connections busy than this, contexts would come and go for little.
const BUSY: f64 = 0.5;

pub(super) fn advise(known: &Known<'_>, evidence: &str) -> Option<Proposal> {
    let mix = known.rates.mix().filter(|mix| mix.seconds >= LONG_ENOUGH)?;
    // Each message keeps one connection's contexts for so long; several on one connection keep fewer.
    let busy = mix.messages_per_second * QUIET;
    (busy < BUSY).then(|| Proposal {
        id: "free-idle-compression",
        action: format!("free the contexts of connections that are silent for {QUIET} s, and begin anew with the next message"),
        evidence: match mix.messages_per_second {
            0.0 => format!("{evidence}; no message was seen for {}", span(mix.seconds)),
            rate => format!(
                "{evidence}; a connection carries a message every {}, so that at most {} of them hold contexts at a time",
                latency(1.0 / rate),
                percent(busy)
            ),
        },
        changes: left_with(known, busy),
    })
}
