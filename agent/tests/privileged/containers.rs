//! Containers and pods, which to the agent are cgroups with telling names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::document::{Container, Runtime};
use anyhow::{Context as _, ensure};
use procfs::process::Process as ProcProcess;

use crate::agent_process::Settling;
use crate::load;
use crate::pace::patient;
use crate::process::{Process, SOON, until};
use crate::runner::Skip;

const UID: &str = "6b1a3c2e-9d4f-4e8a-b7c5-0f1e2d3c4b5a";

pub(crate) fn a_process_is_reported_with_its_container_and_pod() -> anyhow::Result<()> {
    // Another run of this test may be on its way on the same host.
    let mut random = fastrand::Rng::new();
    let mut id = || -> String { std::iter::repeat_with(|| random.digit(16)).take(64).collect() };
    let (docker, containerd) = (id(), id());
    let slice = UID.replace('-', "_");
    let slice = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice");
    // Made before the processes that are put into them, and so removed after those have ended.
    let scope = Group::new(&format!("system.slice/docker-{docker}.scope"))?;
    let pod = Group::new(&format!("{slice}/cri-containerd-{containerd}.scope"))?;
    let (server, address) = load::server()?;
    scope.take(&server)?;
    let snapshot = Settling::attach(address.port(), patient(Duration::from_secs(4)))?;
    let clients = load::load(address, 5, 5, &[])?;
    pod.take(&clients)?;
    let snapshot = snapshot.finish(SOON)?;
    for (holder, runtime, id, uid) in [
        (&server, Runtime::Docker, docker, None),
        (&clients, Runtime::Containerd, containerd, Some(UID.to_owned())),
    ] {
        let process = snapshot.processes.iter().find(|process| process.pid == holder.pid());
        let process = process.with_context(|| format!("no process {}", holder.pid()))?;
        let expected = Some(Container { runtime: Some(runtime), id });
        ensure!(process.container == expected && process.pod_uid == uid, "{process:?}");
        ensure!(process.connections == 5, "{process:?}");
    }
    Ok(())
}

/// A cgroup, removed with those above it that were made for it.
pub(crate) struct Group {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Group {
    pub(crate) fn new(path: &str) -> anyhow::Result<Self> {
        let mounts = ProcProcess::myself()?.mountinfo()?;
        let root = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2");
        let root = root.ok_or_else(|| Skip("no cgroup v2 hierarchy is mounted".into()))?.mount_point;
        let mut group = Self { path: root.join(path), made: Vec::new() };
        let mut above: PathBuf = root;
        for name in Path::new(path) {
            above.push(name);
            if !above.is_dir() {
                std::fs::create_dir(&above).with_context(|| format!("creating {}", above.display()))?;
                group.made.push(above.clone());
            }
        }
        Ok(group)
    }

    /// What a shell says to enter it.
    pub(crate) fn enter(&self) -> String {
        format!("echo $$ > {}", self.path.join("cgroup.procs").display())
    }

    fn take(&self, process: &Process) -> anyhow::Result<()> {
        let path = self.path.join("cgroup.procs");
        std::fs::write(&path, process.pid().to_string())
            .with_context(|| format!("writing {}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for group in self.made.iter().rev() {
            // A process that has been waited for may still be leaving. Another test may have come to use what is above.
            let _ =
                until("removing a cgroup", Duration::from_secs(2), || Ok(std::fs::remove_dir(group).is_ok()));
        }
    }
}
