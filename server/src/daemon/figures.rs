//! What happened at one listener: counters that cost an addition, read by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::door::Full;

/// Upper bounds of the round-trip histogram's buckets, in seconds.
pub(super) const ROUND_TRIPS: [f64; 12] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Messages in one direction.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) messages: Count,
    /// Payload, uncompressed.
    pub(super) bytes: Count,
}

impl Traffic {
    pub(super) fn add(&self, size: usize) {
        self.messages.add(1);
        self.bytes.add(size as u64);
    }
}

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// `--max-connections`.
    Connections,
    /// `--max-per-address`.
    Address,
}

/// Why there was no WebSocket at the end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// No request of HTTP/1.1, or one that contradicts itself.
    Malformed,
    /// A method other than GET.
    Method,
    /// No upgrade, or to something else.
    NoUpgrade,
    /// More header than is read.
    TooLarge,
    /// Nothing at that path.
    NotFound,
    /// The origin.
    Origin,
    /// Too many rooms.
    Rooms,
    /// The server is going away.
    Draining,
    /// TLS, or HTTP/2 itself.
    Transport,
    /// Not complete in time.
    Timeout,
    /// The peer went away, or the connection broke.
    Gone,
}

impl From<Full> for Refused {
    fn from(full: Full) -> Self {
        match full {
            Full::Connections => Self::Connections,
            Full::Address => Self::Address,
        }
    }
}

impl Refused {
    pub(super) const ALL: [(Self, &'static str); 2] =
        [(Self::Connections, "connections"), (Self::Address, "address")];
}

impl Failed {
    pub(super) const ALL: [(Self, &'static str); 11] = [
        (Self::Malformed, "malformed"),
        (Self::Method, "method"),
        (Self::NoUpgrade, "no_upgrade"),
        (Self::TooLarge, "too_large"),
        (Self::NotFound, "not_found"),
        (Self::Origin, "origin"),
        (Self::Rooms, "rooms"),
        (Self::Draining, "draining"),
        (Self::Transport, "transport"),
        (Self::Timeout, "timeout"),
        (Self::Gone, "gone"),
    ];
}

/// One listener's figures since the start.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// TCP connections let in.
    pub(super) accepted: Count,
    /// WebSockets opened, and ended.
    pub(super) opened: Count,
    pub(super) ended: Count,
    /// Connections parked, and come back or ended there.
    pub(super) parked: Count,
    pub(super) unparked: Count,
    refused: [Count; Refused::ALL.len()],
    failed: [Count; Failed::ALL.len()],
    pub(super) received: Traffic,
    pub(super) sent: Traffic,
    pub(super) pings: Count,
    pub(super) pongs: Count,
    /// Pings that had no answer when the next one was due.
    pub(super) missed: Count,
    /// Connections given up for that.
    pub(super) ping_timeouts: Count,
    /// Messages that slow members of rooms lost.
    pub(super) relay_dropped: Count,
    /// Slow members that were sent away.
    pub(super) slow_closed: Count,
    round_trips: [Count; ROUND_TRIPS.len() + 1],
    round_trip_nanos: Count,
}

impl Figures {
    pub(super) fn refuse(&self, reason: Refused) {
        self.refused[reason as usize].add(1);
    }

    pub(super) fn refused(&self, reason: Refused) -> u64 {
        self.refused[reason as usize].get()
    }

    pub(super) fn all_refused(&self) -> u64 {
        self.refused.iter().map(Count::get).sum()
    }

    pub(super) fn all_failed(&self) -> u64 {
        self.failed.iter().map(Count::get).sum()
    }

    pub(super) fn fail(&self, reason: Failed) {
        self.failed[reason as usize].add(1);
    }

    pub(super) fn failed(&self, reason: Failed) -> u64 {
        self.failed[reason as usize].get()
    }

    pub(super) fn round_trip(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = ROUND_TRIPS.partition_point(|bound| *bound < seconds);
        self.round_trips[bucket].add(1);
        self.round_trip_nanos.add(time.as_nanos().try_into().unwrap_or(u64::MAX));
    }

    /// Round trips in each bucket, the last without an upper bound; and their sum in seconds.
    pub(super) fn round_trips(&self) -> ([u64; ROUND_TRIPS.len() + 1], f64) {
        (self.round_trips.each_ref().map(Count::get), self.round_trip_nanos.get() as f64 / 1e9)
    }

    /// WebSockets open now, and how many of them are parked. The counters are read one after the other, so what happens
    /// meanwhile may be in one and not in the other: the parked are never more than all.
    pub(super) fn open(&self) -> (u64, u64) {
        let (ended, unparked) = (self.ended.get(), self.unparked.get());
        let open = self.opened.get().saturating_sub(ended);
        (open, self.parked.get().saturating_sub(unparked).min(open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place_and_its_name() {
        for (at, (reason, _)) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        for (at, (reason, _)) in Failed::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }

    #[test]
    fn round_trips_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let figures = Figures::default();
        for micros in [1, 500, 501, 5_000_000, 5_000_001] {
            figures.round_trip(Duration::from_micros(micros));
        }
        let (buckets, sum) = figures.round_trips();
        assert_eq!((buckets[0], buckets[1], buckets[11], buckets[12]), (2, 1, 1, 1));
        assert!((sum - 10.001_003).abs() < 1e-9, "{sum}");
    }
}
