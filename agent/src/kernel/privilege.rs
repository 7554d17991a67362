//! Which capabilities the agent needs, which it has, and what each of its threads keeps once everything is attached.
//! docs/capabilities.md justifies each.

use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use rustix::fs::{Access, AtFlags, CWD};

/// Needed to attach at all. `CAP_SYS_ADMIN` stands for the first two on older set-ups, but is never asked for.
const REQUIRED: &[(Capability, &str)] = &[
    (Capability::CAP_BPF, "CAP_BPF"),
    (Capability::CAP_PERFMON, "CAP_PERFMON"),
    (Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
];

/// The engine reads other users' /proc/PID/fd and /proc/PID/ns.
const ENGINE: &[Capability] = &[Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// The thread that enters network namespaces.
const NAMESPACES: &[Capability] = &[Capability::CAP_SYS_ADMIN];

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

/// The calling thread becomes one that reads what the programs gather, and /proc. `works` says whether maps and iterators
/// can be read with what is then in effect: before Linux 5.19 every bpf(2) command may take `CAP_BPF`.
pub(crate) fn keep_for_engine(works: impl FnOnce() -> bool) -> Result<(), String> {
    in_effect(ENGINE)?;
    let bpf: &[Capability] = match works() {
        true => &[],
        false => &[Capability::CAP_BPF],
    };
    keep(&[ENGINE, bpf].concat())
}

/// The calling thread becomes one that enters network namespaces and does nothing else.
pub(super) fn keep_for_namespaces() -> Result<(), String> {
    keep(NAMESPACES)
}

/// The calling thread becomes one that writes to `output`, where that is a file or a socket of a folder: it opens the one anew
/// after it was rotated, and removes the other. Only where the folder is somebody else's does that take a capability.
pub(crate) fn keep_for_output(output: Option<&Path>) -> Result<(), String> {
    in_effect(&[])?;
    let closed = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(CWD, folder.unwrap_or(Path::new(".")), wanted, AtFlags::EACCESS).is_err()
    };
    match output.is_some_and(closed) {
        true => keep(&[Capability::CAP_DAC_OVERRIDE]),
        false => keep(&[]),
    }
}

/// Gives up all that is not in `kept`, for good: neither this thread nor those it starts, nor a program that one of them might be
/// made to execute, gets it back.
fn keep(kept: &[Capability]) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("giving up privileges: {error}");
    rustix::thread::set_no_new_privs(true).map_err(|error| failed(&error))?;
    let all = caps::read(None, CapSet::Permitted).map_err(|error| failed(&error))?;
    caps::set(None, CapSet::Effective, &all).map_err(|error| failed(&error))?;
    for capability in caps::runtime::thread_all_supported() {
        if !kept.contains(&capability) {
            // It takes CAP_SETPCAP, which an agent that is not root has no use for. No new privileges come without it as well.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(|error| failed(&error))?;
    }
    in_effect(kept)?;
    caps::set(None, CapSet::Permitted, &permitted(kept)?).map_err(|error| failed(&error))
}

/// Has `wanted` in effect, as far as the thread may, and nothing else.
fn in_effect(wanted: &[Capability]) -> Result<(), String> {
    caps::set(None, CapSet::Effective, &permitted(wanted)?)
        .map_err(|error| format!("giving up privileges: {error}"))
}

fn permitted(wanted: &[Capability]) -> Result<CapsHashSet, String> {
    let all =
        caps::read(None, CapSet::Permitted).map_err(|error| format!("reading capabilities: {error}"))?;
    Ok(all.into_iter().filter(|capability| wanted.contains(capability)).collect())
}
