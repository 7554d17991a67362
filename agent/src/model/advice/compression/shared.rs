//! Contexts that end with each message and can be shared.

use super::left_with;
use crate::model::advice::{Known, Proposal};

pub(super) fn advise(known: &Known<'_>, evidence: &str) -> Option<Proposal> {
    Some(Proposal {
        id: "share-compression",
        action: "negotiate server_no_context_takeover and client_no_context_takeover, and share one compressor and one decompressor \
                 among the connections of a thread; messages that repeat each other shrink less"
            .into(),
        evidence: evidence.to_owned(),
        changes: left_with(known, 0.0),
    })
}
