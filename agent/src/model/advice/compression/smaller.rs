//! Smaller windows and hash tables.

use super::left_with;
use crate::model::advice::{Known, Proposal};
use crate::model::zlib::{deflate_bytes, inflate_bytes};
use crate::report::format::bytes;

/// A window of 2 KiB, which covers a few messages.
const WINDOW_BITS: u8 = 11;
const MEM_LEVEL: u8 = 4;

pub(super) fn advise(known: &Known<'_>, evidence: &str) -> Option<Proposal> {
    let total = known.summary.total();
    let now = total.compression_bytes as f64 / total.compressed as f64;
    let then = deflate_bytes(WINDOW_BITS, MEM_LEVEL) + inflate_bytes(WINDOW_BITS);
    let share = then as f64 / now;
    (share < 1.0).then(|| Proposal {
        id: "shrink-compression",
        action: format!(
            "negotiate server_max_window_bits={WINDOW_BITS} and client_max_window_bits={WINDOW_BITS}, and give zlib memLevel {MEM_LEVEL} \
             (C zlib: zlib-rs has one size of hash table)"
        ),
        evidence: format!(
            "{evidence}; by zlib's formulas {} for each that negotiated it, and {} then",
            bytes(now as u64),
            bytes(then)
        ),
        changes: left_with(known, share),
    })
}
