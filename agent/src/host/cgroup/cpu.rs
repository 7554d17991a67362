//! Processor time of a cgroup.

use std::path::Path;

use super::super::text;
use super::Version;
use crate::model::CgroupCpu;

pub(super) fn read(version: Version, folder: &Path, path: String) -> Option<CgroupCpu> {
    let (quota, period) = match version {
        // A quota of -1 is none.
        Version::V1 => {
            (text::value(folder.join("cpu.cfs_quota_us"))?, text::value(folder.join("cpu.cfs_period_us"))?)
        }
        Version::V2 => parse_max(&text::read(folder.join("cpu.max")).ok()?)?,
    };
    let millicores = (quota * 1000).checked_div(period)?;
    let used_seconds = match version {
        // In the same folder only where both controllers are mounted together, as most hosts do.
        Version::V1 => text::value(folder.join("cpuacct.usage")).map(|nanoseconds| nanoseconds as f64 / 1e9),
        Version::V2 => text::read(folder.join("cpu.stat")).ok().and_then(|stat| usage(&stat)),
    };
    Some(CgroupCpu { path, millicores, used_seconds })
}

/// `50000 100000`; `max 100000` is no quota.
fn parse_max(text: &str) -> Option<(u64, u64)> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some((quota.parse().ok()?, period.parse().ok()?))
}

fn usage(stat: &str) -> Option<f64> {
    let microseconds: u64 = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())?;
    Some(microseconds as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        for (file, text) in files {
            std::fs::write(folder.path().join(file), text).expect("written");
        }
        folder
    }

    #[test]
    fn quotas_of_both_versions_are_millicores() {
        let v2 = folder(&[("cpu.max", "150000 100000\n"), ("cpu.stat", "usage_usec 2500000\nuser_usec 1\n")]);
        let cpu = read(Version::V2, v2.path(), "/a".into()).expect("limited");
        assert_eq!((cpu.millicores, cpu.used_seconds), (1500, Some(2.5)));
        let v1 = folder(&[("cpu.cfs_quota_us", "20000\n"), ("cpu.cfs_period_us", "100000\n")]);
        let cpu = read(Version::V1, v1.path(), "/a".into()).expect("limited");
        assert_eq!((cpu.millicores, cpu.used_seconds), (200, None));
    }

    #[test]
    fn without_a_quota_there_is_no_limit() {
        let v2 = folder(&[("cpu.max", "max 100000\n")]);
        assert_eq!(read(Version::V2, v2.path(), "/a".into()), None);
        let v1 = folder(&[("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")]);
        assert_eq!(read(Version::V1, v1.path(), "/a".into()), None);
    }
}
