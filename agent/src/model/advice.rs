//! Advice: changes whose effect can be computed, and only those.

use super::Reading;
use crate::document::{Advice, Ceiling, Effect, Kind};

/// What would move the first ceiling. `ceilings` come ordered, the first to be hit first.
pub fn advise(ceilings: &[Ceiling], reading: &Reading) -> Vec<Advice> {
    let Some(first) = ceilings.first().filter(|ceiling| ceiling.first) else {
        return Vec::new();
    };
    raise_soft_limit(first, ceilings, reading).into_iter().collect()
}

/// A soft descriptor limit below the hard one can be raised without any privilege.
fn raise_soft_limit(first: &Ceiling, ceilings: &[Ceiling], reading: &Reading) -> Option<Advice> {
    let pid: u32 =
        first.scope.strip_prefix("process:").filter(|_| first.kind == Kind::Descriptors)?.parse().ok()?;
    let process = reading.processes.iter().find(|process| process.pid == pid)?;
    let (soft, hard) = (process.descriptors.soft_limit?, process.descriptors.hard_limit?);
    if hard <= soft {
        return None;
    }
    let before = first.connections_max?;
    let raised = before.saturating_add(hard - soft);
    // The next ceiling may come before the raised limit does.
    let next = ceilings[1..]
        .iter()
        .filter_map(|ceiling| ceiling.connections_left.map(|left| left.saturating_add(first.connections)));
    let after = next.chain([raised]).min().unwrap_or(raised);
    Some(Advice {
        id: "raise-soft-descriptor-limit".into(),
        ceiling: Kind::Descriptors,
        action: format!(
            "raise the soft descriptor limit of {} (process {pid}) from {soft} to its hard limit {hard}: LimitNOFILE={hard} in its unit, or setrlimit at start",
            process.comm
        ),
        effect: Effect { connections_max_before: before, connections_max_after: after },
        evidence: format!(
            "{} of {soft} descriptors are open, {} of them are WebSocket connections",
            process.descriptors.open.unwrap_or(0),
            first.connections
        ),
    })
}
