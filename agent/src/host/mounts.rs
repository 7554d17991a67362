//! Where file systems are mounted.

use std::path::PathBuf;

use super::text;

/// The mounts of one moment.
#[derive(Debug, Default)]
pub(crate) struct Mounts(String);

impl Mounts {
    /// Those the agent sees; none where they cannot be read.
    pub(crate) fn read() -> Self {
        Self(text::read("/proc/self/mounts").unwrap_or_default())
    }

    /// The first mount point whose type and options suit.
    pub(crate) fn find(&self, suits: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
        self.all(suits).next()
    }

    /// All mount points whose type and options suit, in the order they were mounted.
    pub(crate) fn all(&self, suits: impl Fn(&str, &str) -> bool) -> impl Iterator<Item = PathBuf> {
        self.0.lines().filter_map(move |line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            suits(kind, options).then(|| PathBuf::from(unescape(path)))
        })
    }
}

/// The kernel writes white space and backslashes as three octal digits (fs/proc_namespace.c, `mangle`).
pub(super) fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (code, plain)| path.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_suitable_mount_is_found_under_its_real_name() {
        let mounts = "proc /proc proc rw 0 0\ncgroup2 /mnt/a\\040b cgroup2 rw,relatime 0 0\n";
        let mounts = Mounts(mounts.into());
        assert_eq!(mounts.find(|kind, _| kind == "cgroup2"), Some(PathBuf::from("/mnt/a b")));
        assert_eq!(mounts.find(|kind, options| kind == "proc" && options == "rw"), Some("/proc".into()));
        assert_eq!(mounts.find(|kind, _| kind == "ext4"), None);
    }
}
