//! Processor time of the host.

use super::text;
use crate::model::HostCpu;

pub(super) fn read() -> Result<HostCpu, String> {
    parse(&text::named("/proc/stat")?, procfs::ticks_per_second() as f64)
}

/// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`, in clock ticks; guests are in user and nice too.
fn parse(stat: &str, ticks_per_second: f64) -> Result<HostCpu, String> {
    const BUSY: [usize; 6] = [0, 1, 2, 5, 6, 7];
    let mut lines = stat.lines();
    let all = lines.next().and_then(|line| line.strip_prefix("cpu ")).ok_or("no cpu line")?;
    let ticks: Vec<u64> = all.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let busy = BUSY.iter().map(|field| ticks.get(*field).copied()).sum::<Option<u64>>();
    let busy = busy.ok_or("the cpu line is short")?;
    let cores = lines.take_while(|line| line.starts_with("cpu")).count() as u64;
    Ok(HostCpu { busy_seconds: busy as f64 / ticks_per_second, cores })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_busy_and_guests_are_not_counted_twice() {
        let stat = "cpu  100 10 20 5000 300 4 5 6 50 0\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nintr 5 0\n";
        assert_eq!(parse(stat, 100.0), Ok(HostCpu { busy_seconds: 1.45, cores: 2 }));
        assert!(parse("cpu  100 10\n", 100.0).is_err());
    }
}
