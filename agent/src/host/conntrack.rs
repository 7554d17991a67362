//! Connection tracking (nf_conntrack), by network namespace.

use std::collections::BTreeMap;

use super::text;
use crate::model::{Conntrack, ProcessReading};

/// Of the agent's own namespace, `own`, and those of `processes`; none where the kernel tracks no connections.
pub(super) fn read(own: Option<u32>, processes: &[ProcessReading]) -> Option<Conntrack> {
    let max = text::value("/proc/sys/net/netfilter/nf_conntrack_max")?;
    let mut entries = BTreeMap::new();
    if let Some((own, count)) = own.zip(text::value("/proc/sys/net/netfilter/nf_conntrack_count")) {
        entries.insert(own, count);
    }
    for process in processes {
        let Some(netns) = process.netns.filter(|netns| !entries.contains_key(netns)) else {
            continue;
        };
        // A process's /proc/PID/net is its namespace's; sysctls are shown of the reader's namespace only.
        let statistics = text::read(format!("/proc/{}/net/stat/nf_conntrack", process.pid)).ok();
        if let Some(count) = statistics.and_then(|statistics| entries_of(&statistics)) {
            entries.insert(netns, count);
        }
    }
    Some(Conntrack { max, entries })
}

/// A line for each CPU behind the heading, all of which begin with the namespace's number of entries, in hexadecimal.
fn entries_of(statistics: &str) -> Option<u64> {
    let first = statistics.lines().nth(1)?.split_whitespace().next()?;
    u64::from_str_radix(first, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_hexadecimal_and_not_summed_over_cpus() {
        let text = "entries  clashres found\n0000001f  00000000 00000003\n0000001f  00000001 00000000\n";
        assert_eq!(entries_of(text), Some(31));
        assert_eq!(entries_of("entries  clashres found\n"), None);
    }
}
