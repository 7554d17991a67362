//! The cgroups a process is in, on v1, v2 and hybrid hosts, and the limits of theirs that hold.

mod cpu;
mod memory;
mod tasks;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::mounts::Mounts;
use super::text;
use crate::model::{CgroupCpu, CgroupMemory, CgroupTasks};

/// A process's group in one controller's hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Group {
    /// Path in its hierarchy, as /proc/PID/cgroup gives it.
    pub(super) path: String,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Version {
    V1,
    V2,
}

/// The text of /proc/PID/cgroup.
pub(super) fn text(pid: u32) -> Option<String> {
    text::read(format!("/proc/{pid}/cgroup")).ok()
}

/// The group in the v1 hierarchy of the controller where there is one, else the v2 group.
pub(super) fn group(text: &str, controller: &str) -> Option<Group> {
    let entries = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some((controllers, path))
    });
    let (mut v1, mut v2) = (None, None);
    for (controllers, path) in entries {
        if controllers.split(',').any(|one| one == controller) {
            v1 = Some(path);
        } else if controllers.is_empty() {
            v2 = Some(path);
        }
    }
    let group = |path: &str, version| Group { path: path.to_owned(), version };
    v1.map(|path| group(path, Version::V1)).or_else(|| v2.map(|path| group(path, Version::V2)))
}

/// What is read of groups in one reading of the host: processes of one service are in the same ones.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    mounts: Mounts,
    memory: HashMap<Group, Option<CgroupMemory>>,
    tasks: HashMap<Group, Option<CgroupTasks>>,
    cpu: HashMap<Group, Option<CgroupCpu>>,
}

impl Cgroups {
    pub(super) fn new() -> Self {
        Self { mounts: Mounts::read(), ..Self::default() }
    }

    /// Memory of the group, or of the ancestor, that has the least room left; `None` where none is limited.
    pub(super) fn memory(&mut self, group: &Group) -> Option<CgroupMemory> {
        let mounts = &self.mounts;
        let read = || nearest(group, &group.root(mounts, "memory")?, memory::read, memory::room);
        cached(&mut self.memory, group, read)
    }

    /// Tasks of the group, or of the ancestor, that has the least room left; `None` where none is limited.
    pub(super) fn tasks(&mut self, group: &Group) -> Option<CgroupTasks> {
        let mounts = &self.mounts;
        let read = || nearest(group, &group.root(mounts, "pids")?, tasks::read, tasks::room);
        cached(&mut self.tasks, group, read)
    }

    /// The smallest quota of processor time of the group and its ancestors; `None` where none has one.
    pub(super) fn cpu(&mut self, group: &Group) -> Option<CgroupCpu> {
        let mounts = &self.mounts;
        let read = || nearest(group, &group.root(mounts, "cpu")?, cpu::read, |cpu| cpu.millicores);
        cached(&mut self.cpu, group, read)
    }
}

fn cached<T: Clone>(
    known: &mut HashMap<Group, Option<T>>,
    group: &Group,
    read: impl FnOnce() -> Option<T>,
) -> Option<T> {
    if let Some(found) = known.get(group) {
        return found.clone();
    }
    let found = read();
    known.insert(group.clone(), found.clone());
    found
}

impl Group {
    /// Where its hierarchy is mounted.
    fn root(&self, mounts: &Mounts, controller: &str) -> Option<PathBuf> {
        mounts.find(|kind, options| match self.version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|option| option == controller),
            Version::V2 => kind == "cgroup2",
        })
    }
}

/// Of what `read` finds in the group's folder and those above, the one with the least `room`: every ancestor's limit holds
/// as well.
fn nearest<T>(
    group: &Group,
    root: &Path,
    read: impl Fn(Version, &Path, String) -> Option<T>,
    room: impl Fn(&T) -> u64,
) -> Option<T> {
    let mut folder = root.join(group.path.trim_start_matches('/'));
    let mut nearest: Option<T> = None;
    while let Ok(path) = folder.strip_prefix(root) {
        if let Some(found) = read(group.version, &folder, format!("/{}", path.display()))
            && nearest.as_ref().is_none_or(|nearest| room(&found) < room(nearest))
        {
            nearest = Some(found);
        }
        if !folder.pop() {
            break;
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_has_each_controller_in_one_hierarchy() {
        let text = "4:memory:/system.slice/web.service\n1:cpu,cpuacct:/quota\n0::/elsewhere\n";
        let found = |controller| group(text, controller).expect("found");
        assert_eq!(
            (found("memory").path.as_str(), found("memory").version),
            ("/system.slice/web.service", Version::V1)
        );
        assert_eq!((found("cpu").path.as_str(), found("cpu").version), ("/quota", Version::V1));
        assert_eq!((found("pids").path.as_str(), found("pids").version), ("/elsewhere", Version::V2));
        assert!(group("", "memory").is_none());
    }

    #[test]
    fn the_ancestor_with_the_least_room_decides() {
        let root = tempfile::tempdir().expect("folder");
        let leaf = root.path().join("slice/web");
        std::fs::create_dir_all(&leaf).expect("created");
        for (folder, room) in [("slice/web", 900), ("slice", 50), ("", 70)] {
            std::fs::write(root.path().join(folder).join("room"), format!("{room}\n")).expect("written");
        }
        let group = Group { path: "/slice/web".into(), version: Version::V2 };
        let read = |_, folder: &Path, path| Some((path, text::value(folder.join("room"))?));
        assert_eq!(nearest(&group, root.path(), read, |found| found.1), Some(("/slice".to_owned(), 50)));
    }
}
