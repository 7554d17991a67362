//! Where the packet programs attach: the root of the cgroup v2 hierarchy, if the agent can get at it.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::load::LoadError;
use crate::document::Degraded;
use crate::host::mounts::Mounts;

/// A mounted cgroup v2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cgroup {
    path: PathBuf,
    /// Whether it is the host's. A cgroup namespace of one's own shows its own cgroup in place of the root.
    whole: bool,
}

impl Cgroup {
    /// The host's hierarchy where that is mounted, on a hybrid host beside those of version 1; else a part of it.
    pub(super) fn find() -> Result<Self, LoadError> {
        Self::nearest_to_root(Mounts::read().all(|kind, _| kind == "cgroup2"))
    }

    fn nearest_to_root(mounts: impl Iterator<Item = PathBuf>) -> Result<Self, LoadError> {
        // Every cgroup has this file, and the root alone has not (Documentation/admin-guide/cgroup-v2.rst).
        let whole = |path: &Path| !path.join("cgroup.events").exists();
        let mut part = None;
        for path in mounts {
            if whole(&path) {
                return Ok(Self { path, whole: true });
            }
            part.get_or_insert(Self { path, whole: false });
        }
        part.ok_or(LoadError::NoCgroup)
    }

    /// Opens it for attaching. A part of the host is refused unless that was asked for: programs there see its connections
    /// alone, and a host full of others would look idle.
    pub(super) fn open(&self, part_will_do: bool) -> Result<File, LoadError> {
        let path = self.path.clone();
        if !self.whole && !part_will_do {
            return Err(LoadError::PartOfHost { path });
        }
        File::open(&self.path).map_err(|source| LoadError::Cgroup { path, source })
    }

    /// What is not seen from here.
    pub(super) fn degraded(&self) -> Option<Degraded> {
        let reason = format!(
            "--this-cgroup: only connections of the cgroup mounted at {} and of those below it are seen; ceilings of the \
             host count no others",
            self.path.display()
        );
        (!self.whole).then(|| Degraded { probe: "connections outside of this cgroup".into(), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_preferred_to_a_part_and_a_part_is_known_for_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let [root, part] = ["root", "part"].map(|name| folder.path().join(name));
        for path in [&root, &part] {
            std::fs::create_dir(path).expect("made");
        }
        std::fs::write(part.join("cgroup.events"), "populated 1\n").expect("written");
        let find = |mounts: &[&PathBuf]| Cgroup::nearest_to_root(mounts.iter().copied().cloned());
        let whole = find(&[&part, &root]).expect("the root is among them");
        assert_eq!((&whole.path, whole.degraded()), (&root, None));
        assert!(whole.open(false).is_ok());
        let some = find(&[&part]).expect("a part");
        assert!(matches!(some.open(false), Err(LoadError::PartOfHost { path }) if path == part));
        assert!(some.open(true).is_ok());
        assert!(some.degraded().is_some_and(|said| said.reason.contains(&part.display().to_string())));
        assert!(matches!(find(&[]), Err(LoadError::NoCgroup)));
    }
}
