//! Debian's kernel images for cloud machines, fetched through apt and never installed.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::apt::{Apt, PART, find};
use crate::process::Stop;

/// A series of kernels.
pub(super) struct Series {
    /// As in `linux-image-6.12.…`.
    pub(super) version: &'static str,
    /// Codename of the Debian release that carries it.
    pub(super) suite: &'static str,
}

/// What `ss` asks through, of which Debian makes modules.
const MODULES: &[&str] = &["inet_diag", "tcp_diag"];

/// A kernel, unpacked.
pub(super) struct Kernel {
    /// The package's name.
    pub(super) name: String,
    pub(super) image: PathBuf,
    pub(super) modules: Vec<PathBuf>,
}

/// The series' newest kernel, kept in `folder`; the newest that is kept there where no newer one can be had.
pub(super) fn kernel(stop: &Stop, folder: &Path, series: &Series) -> anyhow::Result<Kernel> {
    let kernels = folder.join("kernels");
    let error = match fetched(stop, folder, &kernels, series) {
        Ok(name) => return unpacked(&kernels, name),
        Err(error) => error,
    };
    stop.check()?;
    let prefix = format!("linux-image-{}.", series.version);
    let kept = fs::read_dir(&kernels).into_iter().flatten();
    let names = kept.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let whole = names.filter(|name| name.starts_with(&prefix) && !name.ends_with(PART));
    let Some(name) = whole.max_by_key(|name| numbers(name)) else { return Err(error) };
    println!("{error:#}; going on with a kernel fetched before");
    unpacked(&kernels, name)
}

/// Sees to it that the series' newest kernel is in `kernels` and returns its package's name.
fn fetched(stop: &Stop, folder: &Path, kernels: &Path, series: &Series) -> anyhow::Result<String> {
    // What the machine knows already is a matter of milliseconds; its lists may be absent, old, or of other releases.
    if let Ok(found) = fetch(stop, &Apt::of_machine(), kernels, series) {
        return Ok(found);
    }
    stop.check()?;
    let apt = Apt::of_suite(&folder.join("apt").join(series.suite), series.suite)?;
    let updated = apt.update(stop);
    fetch(stop, &apt, kernels, series).or_else(|error| updated.and(Err(error)))
}

fn fetch(stop: &Stop, apt: &Apt, kernels: &Path, series: &Series) -> anyhow::Result<String> {
    let pattern = format!("^linux-image-{}\\..*-cloud-amd64$", series.version.replace('.', "\\."));
    let names = apt.search(&pattern)?;
    let newest = names.into_iter().filter(|name| !name.contains("unsigned")).max_by_key(|name| numbers(name));
    let name = newest.with_context(|| format!("apt knows no cloud image of Linux {}", series.version))?;
    let folder = kernels.join(&name);
    apt.unpack(stop, &name, &folder)?;
    Ok(name)
}

/// The parts of a package in `kernels`.
fn unpacked(kernels: &Path, name: String) -> anyhow::Result<Kernel> {
    let folder = kernels.join(&name);
    let image = find(&folder.join("boot"), |name| name.starts_with("vmlinuz"))?;
    let modules = find(&folder.join("lib/modules"), |_| true)?.join("kernel/net/ipv4");
    let modules = MODULES.iter().map(|module| find(&modules, |name| name.split('.').next() == Some(module)));
    Ok(Kernel { name, image, modules: modules.collect::<anyhow::Result<_>>()? })
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
