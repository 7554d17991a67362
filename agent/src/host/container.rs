//! Which container and which Kubernetes pod a process is in, by the names that container managers give their cgroups.

use crate::document::{Container, Runtime};

/// Prefixes of scopes and groups that are followed by a container's id. The `-conmon` ones are the monitors outside.
const NAMED: &[(&str, Runtime)] = &[
    ("docker-", Runtime::Docker),
    ("cri-containerd-", Runtime::Containerd),
    ("nerdctl-", Runtime::Containerd),
    ("crio-", Runtime::CriO),
    ("libpod-", Runtime::Podman),
];

/// What a process's cgroups say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Whereabouts {
    pub(super) container: Option<Container>,
    pub(super) pod_uid: Option<String>,
}

/// From the text of /proc/PID/cgroup. The v2 hierarchy is asked first, any other that knows will do.
pub(super) fn parse(text: &str) -> Whereabouts {
    let lines = || text.lines().filter_map(|line| line.splitn(3, ':').nth(2).map(|path| (line, path)));
    let unified = lines().filter(|(line, _)| line.starts_with("0::"));
    let others = lines().filter(|(line, _)| !line.starts_with("0::"));
    let mut found = Whereabouts::default();
    for (_, path) in unified.chain(others) {
        found.container = found.container.or_else(|| container(path));
        found.pod_uid = found.pod_uid.or_else(|| path.rsplit('/').find_map(pod_uid));
    }
    found
}

/// The innermost container: a container may hold others.
fn container(path: &str) -> Option<Container> {
    let groups: Vec<&str> = path.split('/').collect();
    (0..groups.len()).rev().find_map(|index| {
        let above = index.checked_sub(1).map_or("", |above| groups[above]);
        by_id(groups[index], above).or_else(|| by_name(groups[index], above))
    })
}

/// Managers that name groups for the container's id of 64 hexadecimal digits.
fn by_id(group: &str, above: &str) -> Option<Container> {
    let found = |runtime, id: &str| is_id(id).then(|| Container { runtime, id: id.to_owned() });
    let name = group.strip_suffix(".scope").unwrap_or(group);
    for (prefix, runtime) in NAMED {
        if let Some(container) = name.strip_prefix(prefix).and_then(|id| found(Some(*runtime), id)) {
            return Some(container);
        }
    }
    // A path meant for systemd in the hands of a runtime that does not use it: SLICE:PREFIX:ID.
    if let [_, prefix, id] = name.split(':').collect::<Vec<_>>()[..] {
        let runtime = NAMED.iter().find(|(known, _)| known.trim_end_matches('-') == prefix);
        return found(runtime.map(|(_, runtime)| *runtime), id);
    }
    // Below a pod, whichever runtime Kubernetes uses.
    found((above == "docker").then_some(Runtime::Docker), name)
}

/// Managers that name groups for the container's own name.
fn by_name(group: &str, above: &str) -> Option<Container> {
    let found =
        |runtime, id: &str| (!id.is_empty()).then(|| Container { runtime: Some(runtime), id: id.to_owned() });
    if let Some(name) = group.strip_prefix("lxc.payload.") {
        return found(Runtime::Lxc, name);
    }
    if above == "lxc" || above == "lxc.payload" {
        return found(Runtime::Lxc, group);
    }
    let machine = group.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"));
    let service = group.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service"));
    let name = unescape(machine.or(service)?);
    // libvirt's virtual machines are machines to systemd as well.
    if name.starts_with("qemu-") { None } else { found(Runtime::SystemdNspawn, &name) }
}

/// `pod<uid>` of the cgroupfs driver; `…kubepods-burstable-pod<uid>.slice` of the systemd driver, where a dash would
/// mean a level of its own and so is an underscore.
fn pod_uid(group: &str) -> Option<String> {
    let (slice, _) = group.split_once(':').unwrap_or((group, ""));
    let uid = match slice.strip_suffix(".slice") {
        Some(slice) => {
            slice.rsplit_once("-pod").filter(|(qos, _)| qos.contains("kubepods"))?.1.replace('_', "-")
        }
        None => slice.strip_prefix("pod")?.to_owned(),
    };
    is_uid(&uid).then_some(uid)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_hex)
}

/// A UUID, or for a pod that comes from a file of the kubelet the hash of it.
fn is_uid(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    (groups == [8, 4, 4, 4, 12] || groups == [32]) && text.bytes().all(|byte| byte == b'-' || is_hex(byte))
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// systemd writes a character that a unit's name cannot have as `\x` and two digits.
fn unescape(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut plain = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                plain.extend(&part.as_bytes()[2..]);
            }
            None => plain.extend([b"\\x", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f9c1e0a7b6d5c4e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e";
    const UID: &str = "6b1a3c2e-9d4f-4e8a-b7c5-0f1e2d3c4b5a";

    /// Runtime, id and pod of a process whose only cgroup is `path`; `ID`, `UID` and `U_D` stand for themselves.
    fn at(path: &str) -> (Option<Runtime>, Option<String>, Option<String>) {
        let path = path.replace("U_D", &UID.replace('-', "_")).replace("UID", UID).replace("ID", ID);
        let found = parse(&format!("0::{path}\n"));
        let id = found.container.as_ref().map(|container| container.id.clone());
        (found.container.and_then(|container| container.runtime), id, found.pod_uid)
    }

    fn by_id(runtime: Option<Runtime>) -> (Option<Runtime>, Option<String>, Option<String>) {
        (runtime, Some(ID.to_owned()), None)
    }

    fn in_pod(runtime: Option<Runtime>) -> (Option<Runtime>, Option<String>, Option<String>) {
        (runtime, Some(ID.to_owned()), Some(UID.to_owned()))
    }

    fn named(runtime: Runtime, name: &str) -> (Option<Runtime>, Option<String>, Option<String>) {
        (Some(runtime), Some(name.to_owned()), None)
    }

    #[test]
    fn docker_by_either_driver() {
        assert_eq!(at("/system.slice/docker-ID.scope"), by_id(Some(Runtime::Docker)));
        assert_eq!(at("/docker/ID"), by_id(Some(Runtime::Docker)));
        assert_eq!(at("/docker/ID/init"), by_id(Some(Runtime::Docker)));
        let rootless = "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope";
        assert_eq!(at(rootless), by_id(Some(Runtime::Docker)));
        assert_eq!(at("/ecs/0f1e2d3c4b5a49788766554433221100/ID"), by_id(None), "whoever it was");
    }

    #[test]
    fn kubernetes_by_either_driver() {
        assert_eq!(at("/kubepods/burstable/podUID/ID"), in_pod(None));
        assert_eq!(at("/kubepods/podUID/ID"), in_pod(None), "guaranteed");
        let slices = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_D.slice";
        assert_eq!(at(&format!("{slices}/cri-containerd-ID.scope")), in_pod(Some(Runtime::Containerd)));
        assert_eq!(at(&format!("{slices}/crio-ID.scope/container")), in_pod(Some(Runtime::CriO)));
        assert_eq!(at(&format!("{slices}/docker-ID.scope")), in_pod(Some(Runtime::Docker)));
        let guaranteed = "/kubepods.slice/kubepods-podU_D.slice/cri-containerd-ID.scope";
        assert_eq!(at(guaranteed), in_pod(Some(Runtime::Containerd)));
        let below_root = "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
                          kubelet-kubepods-besteffort-podU_D.slice/cri-containerd-ID.scope";
        assert_eq!(at(below_root), in_pod(Some(Runtime::Containerd)));
        let mixed = "/system.slice/containerd.service/kubepods-burstable-podU_D.slice:cri-containerd:ID";
        assert_eq!(at(mixed), in_pod(Some(Runtime::Containerd)));
        let nested = "/docker/0000000000000000000000000000000000000000000000000000000000000000\
                      /kubelet/kubepods/besteffort/podUID/ID";
        assert_eq!(at(nested), in_pod(None), "a node that is a container itself");
    }

    #[test]
    fn a_static_pods_uid_is_a_hash() {
        let found = parse("0::/kubepods/burstable/pod0f1e2d3c4b5a49788766554433221100\n");
        assert_eq!(found.pod_uid.as_deref(), Some("0f1e2d3c4b5a49788766554433221100"));
        assert_eq!(found.container, None, "the pod's own group is no container");
    }

    #[test]
    fn podman_and_its_monitor() {
        assert_eq!(at("/machine.slice/libpod-ID.scope/container"), by_id(Some(Runtime::Podman)));
        assert_eq!(at("/libpod_parent/libpod-ID"), by_id(Some(Runtime::Podman)));
        let rootless = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container";
        assert_eq!(at(rootless), by_id(Some(Runtime::Podman)));
        assert_eq!(at("/machine.slice/libpod-conmon-ID.scope"), (None, None, None), "it is outside");
        assert_eq!(at("/system.slice/crio-conmon-ID.scope"), (None, None, None), "likewise");
    }

    #[test]
    fn system_containers_have_names() {
        assert_eq!(at("/lxc/web"), named(Runtime::Lxc, "web"));
        assert_eq!(at("/lxc.payload.web/system.slice/nginx.service"), named(Runtime::Lxc, "web"));
        assert_eq!(at("/lxc.payload/web"), named(Runtime::Lxc, "web"));
        assert_eq!(at("/lxc/101/ns/system.slice/nginx.service"), named(Runtime::Lxc, "101"));
        assert_eq!(at("/lxc.monitor.web"), (None, None, None), "it is outside");
        assert_eq!(at("/lxc.payload.web/docker/ID"), by_id(Some(Runtime::Docker)), "the innermost");
        let nspawn = "/machine.slice/machine-web\\x2dfront.scope/payload/system.slice/nginx.service";
        assert_eq!(at(nspawn), named(Runtime::SystemdNspawn, "web-front"));
        let service = "/machine.slice/systemd-nspawn@web\\x2dfront.service/payload";
        assert_eq!(at(service), named(Runtime::SystemdNspawn, "web-front"));
        assert_eq!(at("/machine.slice/machine-qemu\\x2d1\\x2dweb.scope"), (None, None, None), "a VM");
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in [
            "/",
            "/system.slice/nginx.service",
            "/user.slice/user-0.slice/session-1.scope",
            "/docker",
            "/system.slice/docker.service",
            "/system.slice/docker-ID0.scope",
            "/podinfo",
            "/../../init.scope",
        ] {
            assert_eq!(at(path), (None, None, None), "{path}");
        }
    }

    #[test]
    fn any_hierarchy_that_knows_will_do() {
        let hybrid = format!("4:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n");
        let container = parse(&hybrid).container.expect("v1 knows");
        assert_eq!((container.runtime, container.id.as_str()), (Some(Runtime::Docker), ID));
        let both = format!("4:memory:/kubepods/pod{UID}\n0::/system.slice/crio-{ID}.scope\n");
        let found = parse(&both);
        assert_eq!(found.container.and_then(|container| container.runtime), Some(Runtime::CriO));
        assert_eq!(found.pod_uid.as_deref(), Some(UID));
        assert_eq!(parse(""), Whereabouts::default());
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(unescape("a\\x2db\\x2Fc"), "a-b/c");
        assert_eq!(unescape("a\\xzz\\x2"), "a\\xzz\\x2");
    }
}
