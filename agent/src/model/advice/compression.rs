//! Compression: smaller contexts, shared ones, or none where they gain nothing.
//!
//! What contexts hold is an estimate from what was negotiated, at zlib's default memLevel. A process that has less memory of
//! its own for a connection than that has smaller contexts, or has not touched them yet; what it would save is not known then,
//! and nothing is said. Nor is it where messages are compressed and might not gain: what they were before cannot be seen.

mod idle;
mod shared;
mod smaller;
mod unused;

use super::what_if::{Change, part};
use super::{Known, Proposal};
use crate::document::{Ceiling, Kind, Part};
use crate::report::format::{bytes, count};

pub(super) fn advise(known: &Known<'_>, first: &Ceiling) -> Vec<Proposal> {
    let Some(held) = part(first, Part::Compression).filter(|_| first.kind == Kind::Memory) else {
        return Vec::new();
    };
    let evidence = format!(
        "{} of {} connections negotiated compression, whose contexts take {} of the {} of a connection",
        count(known.summary.total().compressed),
        count(known.summary.total().recognised()),
        bytes(held as u64),
        bytes(first.cost_per_connection.unwrap_or(held) as u64)
    );
    [smaller::advise, shared::advise, idle::advise, unused::advise]
        .into_iter()
        .filter_map(|rule| rule(known, &evidence))
        .collect()
}

/// Contexts come down to `share` of what they hold, wherever they count.
fn left_with(known: &Known<'_>, share: f64) -> Vec<Change> {
    let less = |ceiling: &Ceiling| {
        let held = part(ceiling, Part::Compression).filter(|_| ceiling.kind == Kind::Memory)?;
        Some(Change::saving(ceiling, Part::Compression, held * (1.0 - share)))
    };
    known.ceilings.iter().filter_map(less).collect()
}
