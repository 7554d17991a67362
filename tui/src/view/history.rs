//! The last minutes, one sample a tick.

use std::collections::VecDeque;

use agent::document::{Kind, Listener, Tick};
use jiff::Timestamp;

/// Samples kept: five minutes at the usual interval, more than any terminal is wide.
const SAMPLES_KEPT: usize = 300;

/// What a tick said, as far as it is drawn over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Open connections.
    pub connections: u64,
    /// Memory used on the host.
    pub memory_bytes: Option<u64>,
    /// Pings and pongs per second, both directions; unknown on the first tick.
    pub ping_rate: Option<f64>,
}

/// A bounded row of samples.
#[derive(Debug, Clone, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    /// Time and total of the tick before, for rates.
    before: Option<(Timestamp, u64)>,
}

impl History {
    /// Samples, the oldest first.
    pub fn samples(&self) -> impl DoubleEndedIterator<Item = &Sample> + ExactSizeIterator {
        self.samples.iter()
    }

    /// The latest sample.
    pub fn last(&self) -> Option<&Sample> {
        self.samples.back()
    }

    pub(super) fn push(&mut self, timestamp: Timestamp, tick: &Tick) {
        let total = tick.listeners.iter().map(pings_and_pongs).sum();
        let ping_rate = self.before.and_then(|before| rate(before, (timestamp, total)));
        self.before = Some((timestamp, total));
        if self.samples.len() == SAMPLES_KEPT {
            self.samples.pop_front();
        }
        let host_memory =
            tick.ceilings.iter().find(|ceiling| ceiling.kind == Kind::Memory && ceiling.scope == "host");
        self.samples.push_back(Sample {
            connections: tick.connections,
            memory_bytes: host_memory.and_then(|ceiling| ceiling.used),
            ping_rate,
        });
    }

    /// Totals start over: the next tick has no rate.
    pub(super) fn restart(&mut self) {
        self.before = None;
    }
}

fn pings_and_pongs(listener: &Listener) -> u64 {
    let both = [&listener.received, &listener.sent];
    both.iter().flat_map(|traffic| [traffic.ping, traffic.pong]).flatten().sum()
}

/// Unknown where no time passed or a total shrank (a listener was forgotten): a guess would be a spike.
fn rate(before: (Timestamp, u64), now: (Timestamp, u64)) -> Option<f64> {
    let seconds = now.0.duration_since(before.0).as_secs_f64();
    let frames = now.1.checked_sub(before.1)?;
    (seconds > 0.0).then(|| frames as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn rates_need_two_totals_and_time_between_them() {
        assert_eq!(rate((at(1), 100), (at(3), 300)), Some(100.0));
        assert_eq!(rate((at(1), 100), (at(1), 300)), None);
        assert_eq!(rate((at(1), 300), (at(3), 100)), None);
    }

    #[test]
    fn is_bounded_and_restarts_without_a_spike() {
        let mut history = History::default();
        for second in 0..400 {
            history.push(at(second), &fixture::tick(second as u64));
        }
        assert_eq!(history.samples().len(), SAMPLES_KEPT);
        assert!(history.last().and_then(|sample| sample.ping_rate).is_some());
        history.restart();
        history.push(at(500), &fixture::tick(0));
        assert_eq!(history.last().and_then(|sample| sample.ping_rate), None);
    }
}
