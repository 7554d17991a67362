//! Connections that nobody needs tracked.

use super::what_if::Change;
use super::{Known, Proposal, used};
use crate::document::{Ceiling, Kind};
use crate::report::format::count;

pub(super) fn advise(_known: &Known<'_>, first: &Ceiling) -> Vec<Proposal> {
    if first.kind != Kind::Conntrack {
        return Vec::new();
    }
    vec![Proposal {
        id: "exempt-from-conntrack",
        action: "exempt the servers' ports from connection tracking (a notrack rule before it, both directions), unless NAT or a \
                 stateful filter needs it"
            .into(),
        evidence: format!(
            "{} entries are in use, {} connections are among them",
            used(first),
            count(first.connections)
        ),
        changes: vec![Change::gone(first)],
    }]
}
