//! Where programs are, and which shared libraries they are loaded with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The file of a command, as a shell finds it.
pub(super) fn command(name: &str) -> anyhow::Result<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&folders).map(|folder| folder.join(name));
    files.find(|file| file.is_file()).with_context(|| format!("there is no {name} here"))
}

/// Paths of the libraries of `program` and of the loader, by `ldd`. None for a program that is linked statically.
pub(super) fn of(program: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if error.contains("not a dynamic executable") || out.contains("statically linked") {
        return Ok(BTreeSet::new());
    }
    ensure!(output.status.success(), "ldd {}: {}", program.display(), error.trim());
    ensure!(!out.contains("not found"), "ldd {}: {}", program.display(), out.trim());
    Ok(out.lines().filter_map(path).collect())
}

/// From `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` or `/lib64/ld-linux-x86-64.so.2 (0x…)`. The kernel's own
/// `linux-vdso.so.1 (0x…)` has no path.
fn path(line: &str) -> Option<PathBuf> {
    let target = line.split_once("=>").map_or(line, |(_, target)| target);
    let path = target.split_whitespace().next()?;
    path.starts_with('/').then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ldd() {
        assert_eq!(
            path("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f8a0e21e000)"),
            Some("/lib/x86_64-linux-gnu/libc.so.6".into())
        );
        assert_eq!(
            path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f8a0ec22000)"),
            Some("/lib64/ld-linux-x86-64.so.2".into())
        );
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007f8a0ec20000)"), None);
    }
}
