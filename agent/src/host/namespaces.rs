//! Where network namespaces can be opened. A namespace has no name of its own: it is found through a process or a thread
//! in it, a mount of it, or a descriptor of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::mounts;

/// What statfs(2) says of a namespace (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Inode numbers, as the kernel tells namespaces apart, and a path to each.
pub(crate) type Places = BTreeMap<u32, PathBuf>;

/// The namespace of the calling process.
pub(crate) fn own() -> Option<u32> {
    inode(Path::new("/proc/self/ns/net"))
}

/// Inode number of the namespace at `path`.
pub(crate) fn inode(path: &Path) -> Option<u32> {
    u32::try_from(fs::metadata(path).ok()?.ino()).ok()
}

/// Opens the namespace at `path`, if it is still there. What else may be at a path that was a namespace's is not touched:
/// opening a pipe could wait, and opening a device could be noticed.
pub(crate) fn open(namespace: u32, path: &Path) -> io::Result<Option<File>> {
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let is_namespace = rustix::fs::fstatfs(&found)?.f_type as u64 == NSFS_MAGIC;
    if !is_namespace || rustix::fs::fstat(&found)?.st_ino != u64::from(namespace) {
        return Ok(None);
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map(Some)
}

/// Looks for each of `wanted`, in the cheapest places first. What is not in the result cannot be found.
pub(crate) fn find(wanted: &BTreeSet<u32>) -> Places {
    let mut places = Places::new();
    for search in [by_mount, by_process, by_thread, by_descriptor] {
        if wanted.iter().all(|namespace| places.contains_key(namespace)) {
            break;
        }
        search(&mut |namespace, path| {
            if wanted.contains(&namespace) {
                places.entry(namespace).or_insert(path);
            }
        });
    }
    places
}

/// All that have a mount, a process or a thread. Looking at every descriptor of the host is left to [`find`], which
/// knows what it looks for.
pub(crate) fn all() -> Places {
    let mut places = Places::new();
    for search in [by_mount, by_process, by_thread] {
        search(&mut |namespace, path| {
            places.entry(namespace).or_insert(path);
        });
    }
    places
}

/// `ip netns` and container runtimes keep namespaces alive by mounting them.
fn by_mount(found: &mut dyn FnMut(u32, PathBuf)) {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounted(&text).for_each(|(namespace, path)| found(namespace, path));
}

/// `36 35 0:4 net:[4026532281] /run/netns/name rw - nsfs nsfs rw`
fn mounted(mountinfo: &str) -> impl Iterator<Item = (u32, PathBuf)> {
    mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, path) = (fields.next()?, fields.next()?);
        Some((link_inode(root)?, PathBuf::from(mounts::unescape(path))))
    })
}

fn by_process(found: &mut dyn FnMut(u32, PathBuf)) {
    for process in numbered("/proc") {
        let path = process.path().join("ns/net");
        if let Some(namespace) = inode(&path) {
            found(namespace, path);
        }
    }
}

/// A thread may have gone elsewhere by itself.
fn by_thread(found: &mut dyn FnMut(u32, PathBuf)) {
    for process in numbered("/proc") {
        for thread in numbered(process.path().join("task")) {
            let path = thread.path().join("ns/net");
            if let Some(namespace) = inode(&path) {
                found(namespace, path);
            }
        }
    }
}

/// Somebody may hold a namespace in which nobody is.
fn by_descriptor(found: &mut dyn FnMut(u32, PathBuf)) {
    for process in numbered("/proc") {
        for descriptor in numbered(process.path().join("fd")) {
            let path = descriptor.path();
            let link = fs::read_link(&path).ok();
            if let Some(namespace) = link.and_then(|link| link_inode(link.to_str()?)) {
                found(namespace, path);
            }
        }
    }
}

/// `net:[4026531840]`
fn link_inode(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Entries of a folder in /proc that are numbers; none of a process that is gone or closed to us.
fn numbered(folder: impl AsRef<Path>) -> impl Iterator<Item = DirEntry> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_network_namespaces_are_told_from_others() {
        let mountinfo = "\
            22 28 0:21 / /proc rw,nosuid - proc proc rw\n\
            300 25 0:4 net:[4026532281] /run/netns/a\\040b rw shared:12 - nsfs nsfs rw\n\
            301 25 0:4 mnt:[4026532282] /run/snapd/ns/x.mnt rw - nsfs nsfs rw\n";
        let found: Vec<_> = mounted(mountinfo).collect();
        assert_eq!(found, [(4_026_532_281, PathBuf::from("/run/netns/a b"))]);
    }

    #[test]
    fn the_own_namespace_is_found() {
        let own = own().expect("every process has one");
        let place = find(&BTreeSet::from([own]));
        assert_eq!(inode(&place[&own]), Some(own));
        assert!(open(own, &place[&own]).expect("readable").is_some());
        assert!(open(1, &place[&own]).expect("readable").is_none(), "another's number");
        assert!(all().contains_key(&own));
        assert!(find(&BTreeSet::from([1])).is_empty(), "no namespace has this number");
    }
}
