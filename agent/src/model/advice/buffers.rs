//! Socket buffers that hold more than small messages need.

use super::what_if::{Change, part};
use super::{Known, Proposal};
use crate::document::{Ceiling, Kind, Part};
use crate::report::format::bytes;

/// What a socket is left with, both directions together, in bytes of truesize: several small messages each way.
const ENOUGH: f64 = 32_768.0;

pub(super) fn advise(known: &Known<'_>, first: &Ceiling) -> Vec<Proposal> {
    bound(known, first).into_iter().collect()
}

fn bound(known: &Known<'_>, first: &Ceiling) -> Option<Proposal> {
    let held = buffers(first)?;
    let bounded = |ceiling: &Ceiling| {
        let more = buffers(ceiling)? - ENOUGH;
        (more > 0.0).then(|| Change::saving(ceiling, Part::KernelBuffers, more))
    };
    Some(Proposal {
        id: "bound-socket-buffers",
        action: "bound socket buffers to 16 KiB each way: the third fields of net.ipv4.tcp_rmem and tcp_wmem, or SO_RCVBUF and \
                 SO_SNDBUF of 8 KiB (the kernel doubles them); it slows down bulk transfers over long distances"
            .into(),
        evidence: format!(
            "the buffers of a connection hold {} on average, and would hold 32 KiB at most",
            bytes(held as u64)
        ),
        changes: known.ceilings.iter().filter_map(bounded).collect(),
    })
    .filter(|proposal| !proposal.changes.is_empty())
}

/// Buffer memory of a connection. Of the TCP stack's share it is all there is.
fn buffers(ceiling: &Ceiling) -> Option<f64> {
    match (ceiling.kind, ceiling.scope.as_str()) {
        (Kind::Memory, "tcp") => ceiling.cost_per_connection,
        (Kind::Memory, _) => part(ceiling, Part::KernelBuffers),
        _ => None,
    }
}
