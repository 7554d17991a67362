//! Debian's kernel images for cloud machines, fetched through apt and never installed.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::apt::Apt;
use crate::process::{Running, Stop};

/// A series of kernels.
pub(super) struct Series {
    /// As in `linux-image-6.12.…`.
    pub(super) version: &'static str,
    /// Codename of the Debian release that carries it.
    pub(super) suite: &'static str,
}

/// Package name and image of the series' newest kernel, kept in `folder`.
pub(super) fn kernel(stop: &Stop, folder: &Path, series: &Series) -> anyhow::Result<(String, PathBuf)> {
    let kernels = folder.join("kernels");
    // What the machine knows already is a matter of milliseconds; its lists may be absent, old, or of other releases.
    if let Ok(found) = from(stop, &Apt::of_machine(), &kernels, series) {
        return Ok(found);
    }
    stop.check()?;
    let apt = Apt::of_suite(&folder.join("apt").join(series.suite), series.suite)?;
    let updated = apt.update(stop);
    from(stop, &apt, &kernels, series).or_else(|error| updated.and(Err(error)))
}

fn from(stop: &Stop, apt: &Apt, kernels: &Path, series: &Series) -> anyhow::Result<(String, PathBuf)> {
    let pattern = format!("^linux-image-{}\\..*-cloud-amd64$", series.version.replace('.', "\\."));
    let names = apt.search(&pattern)?;
    let newest = names.into_iter().filter(|name| !name.contains("unsigned")).max_by_key(|name| numbers(name));
    let name = newest.with_context(|| format!("apt knows no cloud image of Linux {}", series.version))?;
    let folder = kernels.join(&name);
    let image = folder.join("vmlinuz");
    if !image.is_file() {
        let scratch = kernels.join(format!("{name}.part"));
        if scratch.exists() {
            fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        fs::create_dir_all(&scratch).with_context(|| format!("creating {}", scratch.display()))?;
        apt.download(stop, &name, &scratch)?;
        unpack(stop, &scratch, &image)?;
        fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
    }
    Ok((name, image))
}

/// Takes the image out of the package in `scratch`.
fn unpack(stop: &Stop, scratch: &Path, image: &Path) -> anyhow::Result<()> {
    let package = find(scratch, |name| name.ends_with(".deb"))?;
    let contents = scratch.join("contents");
    let mut command = Command::new("dpkg-deb");
    let status = Running::start(command.arg("--extract").arg(&package).arg(&contents))?.wait(stop)?;
    ensure!(status.success(), "unpacking {}: {status}", package.display());
    let unpacked = find(&contents.join("boot"), |name| name.starts_with("vmlinuz"))?;
    fs::rename(&unpacked, image).with_context(|| format!("moving {}", unpacked.display()))
}

fn find(folder: &Path, is_it: impl Fn(&str) -> bool) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    let found = names.find(|name| name.to_str().is_some_and(&is_it));
    Ok(folder.join(found.with_context(|| format!("not what was expected in {}", folder.display()))?))
}

/// The numbers in a package's name, which order its versions. Of names with equal numbers the shorter counts more.
fn numbers(name: &str) -> (Vec<u64>, Reverse<usize>) {
    let groups = name.split(|c: char| !c.is_ascii_digit());
    (groups.filter_map(|group| group.parse().ok()).collect(), Reverse(name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_found_by_number() {
        let newest = |names: &[&'static str]| names.iter().copied().max_by_key(|name| numbers(name));
        let old = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"];
        assert_eq!(newest(&old), Some(old[1]));
        let new = ["linux-image-6.12.117+deb12-cloud-amd64", "linux-image-6.12.99+deb12-cloud-amd64"];
        assert_eq!(newest(&new), Some(new[0]));
    }
}
