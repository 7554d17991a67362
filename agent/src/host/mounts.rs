//! Where file systems are mounted.

use std::path::PathBuf;

/// The first mount point whose type and options suit.
pub(crate) fn find(suits: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    parse(&std::fs::read_to_string("/proc/self/mounts").ok()?, suits)
}

fn parse(mounts: &str, suits: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        suits(kind, options).then(|| PathBuf::from(unescape(path)))
    })
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
        assert_eq!(parse(mounts, |kind, _| kind == "cgroup2"), Some(PathBuf::from("/mnt/a b")));
        assert_eq!(parse(mounts, |kind, options| kind == "proc" && options == "rw"), Some("/proc".into()));
        assert_eq!(parse(mounts, |kind, _| kind == "ext4"), None);
    }
}
