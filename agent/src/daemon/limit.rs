//! Fewer events about single connections, where that was asked for: a share of the connections, so many events a second, or both.
//!
//! Whichever connection is told of is told of to its end: it is followed by `connection_closed` or, where that is beyond the rate,
//! later by `connection_vanished`. Totals and ceilings come from elsewhere and are those of all connections.

use std::collections::{HashSet, VecDeque};

use crate::document::{Body, LeftOut, Vanished};

/// What is let through.
#[derive(Debug, Default)]
pub(super) struct Limit {
    /// One of so many connections, by their ids.
    sample: Option<u32>,
    rate: Option<Rate>,
    left_out: LeftOut,
}

#[derive(Debug)]
struct Rate {
    per_second: f64,
    /// Events that may be written now; at most those of a second.
    tokens: f64,
    at_ns: Option<u64>,
    /// Connections that were told of and are not over.
    told: HashSet<u64>,
    /// Connections that were told of, and whose end is not written yet.
    owed: VecDeque<u64>,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Write,
    /// Left out, and done with.
    LeaveOut,
    /// Left out, and welcome another time.
    Later,
}

impl Limit {
    pub(super) fn new(sample: Option<u32>, per_second: Option<u32>) -> Self {
        let rate = per_second.map(|per_second| Rate {
            per_second: per_second.into(),
            tokens: per_second.into(),
            at_ns: None,
            told: HashSet::new(),
            owed: VecDeque::new(),
        });
        Self { sample, rate, left_out: LeftOut::default() }
    }

    /// Lets time pass; returns the connections whose end is to be written now.
    pub(super) fn advance(&mut self, now_ns: u64) -> Vec<Body> {
        let Some(rate) = &mut self.rate else {
            return Vec::new();
        };
        let seconds = now_ns.saturating_sub(rate.at_ns.replace(now_ns).unwrap_or(now_ns)) as f64 / 1e9;
        rate.tokens = (rate.tokens + seconds * rate.per_second).min(rate.per_second);
        let due = rate.owed.len().min(rate.tokens as usize);
        rate.tokens -= due as f64;
        rate.owed
            .drain(..due)
            .map(|cookie| Body::ConnectionVanished(Vanished { id: cookie.to_string() }))
            .collect()
    }

    /// What becomes of an event; counts what is left out.
    pub(super) fn judge(&mut self, body: &Body) -> Verdict {
        let Some((cookie, end)) = subject(body) else {
            return Verdict::Write;
        };
        if !self.is_sampled(cookie) {
            self.left_out.sampled += 1;
            return Verdict::LeaveOut;
        }
        let Some(rate) = &mut self.rate else {
            return Verdict::Write;
        };
        let known = rate.told.contains(&cookie);
        let verdict = match (end, rate.tokens >= 1.0) {
            (true, _) if !known => Verdict::LeaveOut,
            (_, true) => Verdict::Write,
            (true, false) => {
                rate.told.remove(&cookie);
                rate.owed.push_back(cookie);
                Verdict::LeaveOut
            }
            (false, false) => Verdict::Later,
        };
        self.left_out.limited += u64::from(verdict != Verdict::Write);
        verdict
    }

    /// An event that was let through was written, or found no room.
    pub(super) fn done(&mut self, cookie: Option<(u64, bool)>, written: bool) {
        let (Some(rate), Some((cookie, end))) = (&mut self.rate, cookie) else {
            return;
        };
        rate.tokens -= f64::from(u8::from(written));
        match (end, written) {
            (false, true) => drop(rate.told.insert(cookie)),
            (false, false) => {}
            (true, written) => {
                if rate.told.remove(&cookie) && !written {
                    rate.owed.push_back(cookie);
                }
            }
        }
    }

    /// An end that [`Limit::advance`] gave out found no room.
    pub(super) fn owe(&mut self, subject: Option<(u64, bool)>) {
        if let (Some(rate), Some((cookie, _))) = (&mut self.rate, subject) {
            rate.owed.push_back(cookie);
        }
    }

    /// Whether readers that come late are told of a connection: where others were.
    pub(super) fn is_told(&self, body: &Body) -> bool {
        subject(body).is_none_or(|(cookie, _)| {
            self.is_sampled(cookie) && self.rate.as_ref().is_none_or(|rate| rate.told.contains(&cookie))
        })
    }

    pub(super) fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// The same for every event of a connection, and about the same share of any range of ids.
    fn is_sampled(&self, cookie: u64) -> bool {
        self.sample.is_none_or(|one_of| mix(cookie).is_multiple_of(u64::from(one_of.max(1))))
    }
}

/// The connection an event is about, and whether it is the last about it.
pub(super) fn subject(body: &Body) -> Option<(u64, bool)> {
    let (id, end) = match body {
        Body::ConnectionOpened(connection)
        | Body::ConnectionAdopted(connection)
        | Body::ConnectionUpdated(connection) => (&connection.id, false),
        Body::ConnectionClosed(connection) => (&connection.id, true),
        Body::ConnectionVanished(vanished) => (&vanished.id, true),
        _ => return None,
    };
    Some((id.parse().ok()?, end))
}

/// Ids come in runs; this spreads them (the finaliser of splitmix64).
fn mix(id: u64) -> u64 {
    let mut z = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::engine::tests::socket;
    use crate::model::{Clock, connection};

    fn about(cookie: u64) -> crate::document::Connection {
        let clock = Clock { wall: jiff::Timestamp::UNIX_EPOCH, monotonic_ns: 0 };
        connection(&socket(cookie), &clock, None, None)
    }

    /// Whether an event is written, as the outbox does it.
    fn write(limit: &mut Limit, body: &Body) -> bool {
        let written = limit.judge(body) == Verdict::Write;
        if written {
            limit.done(subject(body), true);
        }
        written
    }

    #[test]
    fn a_sampled_connection_is_told_of_from_its_opening_to_its_close_and_the_others_are_counted() {
        let mut limit = Limit::new(Some(10), None);
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        for cookie in 1..=10_000 {
            if write(&mut limit, &Body::ConnectionOpened(about(cookie))) {
                opened.push(cookie);
            }
            if write(&mut limit, &Body::ConnectionClosed(about(cookie))) {
                closed.push(cookie);
            }
        }
        assert_eq!(opened, closed);
        assert!((800..1_200).contains(&opened.len()), "{}", opened.len());
        let sampled = 2 * (10_000 - opened.len() as u64);
        assert_eq!(limit.left_out(), LeftOut { sampled, limited: 0 });
    }

    #[test]
    fn no_second_has_more_events_and_every_opening_has_its_end() {
        let mut limit = Limit::new(None, Some(10));
        let mut told: Vec<u64> = Vec::new();
        for cookie in 1..=25 {
            if write(&mut limit, &Body::ConnectionOpened(about(cookie))) {
                told.push(cookie);
            }
        }
        assert_eq!(told, (1..=10).collect::<Vec<_>>());
        assert_eq!(limit.left_out().limited, 15);
        assert!(
            limit.is_told(&Body::ConnectionUpdated(about(3)))
                && !limit.is_told(&Body::ConnectionUpdated(about(20)))
        );
        // All close at once, those that were never told of too.
        let now =
            (1..=25).filter(|cookie| write(&mut limit, &Body::ConnectionClosed(about(*cookie)))).count();
        assert_eq!(now, 0, "the second is used up");
        let mut ended: Vec<u64> = Vec::new();
        for tenth in 0..=20 {
            let due = limit.advance(tenth * 100_000_000);
            assert!(due.len() <= 1, "one in a tenth of a second");
            ended.extend(due.iter().filter_map(subject).map(|(cookie, _)| cookie));
        }
        assert_eq!(ended, told);
        assert_eq!(limit.left_out().limited, 15 + 25);
    }

    #[test]
    fn an_end_that_found_no_room_is_told_later() {
        let mut limit = Limit::new(None, Some(10));
        assert!(write(&mut limit, &Body::ConnectionOpened(about(1))));
        let closed = Body::ConnectionClosed(about(1));
        assert_eq!(limit.judge(&closed), Verdict::Write);
        limit.done(subject(&closed), false);
        assert_eq!(limit.advance(0), [Body::ConnectionVanished(Vanished { id: "1".into() })]);
    }
}
