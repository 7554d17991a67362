//! What a connection costs the process that holds it.

use std::collections::BTreeMap;

use super::{Estimate, slope};

/// Samples kept per process.
const SAMPLES: usize = 64;
/// The spread of connection counts, as a share of the largest, from which a slope means something.
const SPREAD: f64 = 0.05;

/// Anonymous memory against connection count, per process.
#[derive(Debug, Clone, Default)]
pub struct ProcessCosts {
    samples: BTreeMap<u32, Vec<(f64, f64)>>,
}

impl ProcessCosts {
    /// Takes a process's connection count and anonymous memory. A count seen again replaces its older sample.
    pub fn observe(&mut self, pid: u32, connections: u64, anonymous_bytes: u64) {
        let samples = self.samples.entry(pid).or_default();
        let point = (connections as f64, anonymous_bytes as f64);
        if let Some(same) = samples.iter_mut().find(|(x, _)| *x == point.0) {
            *same = point;
            return;
        }
        if samples.len() == SAMPLES {
            samples.remove(0);
        }
        samples.push(point);
    }

    /// Forgets processes that are gone.
    pub fn retain(&mut self, alive: impl Fn(u32) -> bool) {
        self.samples.retain(|pid, _| alive(*pid));
    }

    /// The process's own bytes per connection, once its memory was seen at counts that differ enough.
    pub fn per_connection(&self, pid: u32) -> Option<Estimate> {
        let samples = self.samples.get(&pid)?;
        let most = samples.iter().map(|(x, _)| *x).fold(0.0, f64::max);
        let least = samples.iter().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
        if most <= 0.0 || most - least < SPREAD * most {
            return None;
        }
        slope(samples).map(|bytes| bytes.map(|bytes| bytes.max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_leaves_the_base_out() {
        let mut costs = ProcessCosts::default();
        for connections in [100, 200, 400, 800] {
            costs.observe(7, connections, 50_000_000 + 1_200 * connections);
        }
        assert!((costs.per_connection(7).expect("known").value - 1_200.0).abs() < 1e-6);
        costs.retain(|pid| pid != 7);
        assert_eq!(costs.per_connection(7), None);
    }

    #[test]
    fn a_constant_count_tells_nothing() {
        let mut costs = ProcessCosts::default();
        for extra in 0..50 {
            costs.observe(7, 1000 + extra % 3, 50_000_000 + extra * 1_000_000);
        }
        assert_eq!(costs.per_connection(7), None);
    }
}
