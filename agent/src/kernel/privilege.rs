//! Which capabilities the agent needs, and which it has. docs/capabilities.md justifies each.

use caps::{CapSet, Capability};

/// Needed to attach at all. `CAP_SYS_ADMIN` stands for the first two on older set-ups, but is never asked for.
const REQUIRED: &[(Capability, &str)] = &[
    (Capability::CAP_BPF, "CAP_BPF"),
    (Capability::CAP_PERFMON, "CAP_PERFMON"),
    (Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
];

/// Names of the required capabilities this thread does not have in effect.
pub fn missing_capabilities() -> Vec<&'static str> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let admin = has(Capability::CAP_SYS_ADMIN);
    REQUIRED
        .iter()
        .filter(|(capability, _)| {
            let implied = admin && *capability != Capability::CAP_NET_ADMIN;
            !implied && !has(*capability)
        })
        .map(|(_, name)| *name)
        .collect()
}
