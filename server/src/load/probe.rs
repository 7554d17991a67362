//! "Is everybody there?": one ping or one message on every open connection, and how many were answered in what time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::LoadError;
use super::bits::Bits;
use super::mailbox::Task;
use super::report::{Percentiles, Probe};
use super::run::{Run, lock};
use crate::signals::Stop;

/// When nothing was answered for so long, the rest is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);
/// Orders given before the connections get their turn.
const BATCH: usize = 256;

/// Bytes of a ping: the connection's rank, and when it was due.
const PING: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ping,
    Message,
}

/// A probe under way.
pub(super) struct Round {
    kind: Kind,
    began: u64,
    /// Who has not answered.
    awaited: Bits,
    times: Histogram<u64>,
    last: Option<u64>,
}

impl Run {
    /// Connection `rank` has answered what was due at `due`.
    pub(super) fn answered(&self, kind: Kind, rank: u32, due: u64) {
        let now = self.now();
        let mut round = lock(&self.round);
        let Some(round) = round.as_mut().filter(|round| round.kind == kind) else { return };
        if due >= round.began && due <= now && round.awaited.remove(rank) {
            round.times.saturating_record((now - due).max(1));
            round.last = Some(now);
        }
    }
}

/// Asks every open connection and waits for the answers, or for a signal.
pub(super) async fn probe(run: &Arc<Run>, kind: Kind, stop: &mut Stop) -> Result<Probe, LoadError> {
    let ranks = run.open_ranks();
    let mut awaited = Bits::default();
    ranks.iter().for_each(|rank| {
        awaited.insert(*rank);
    });
    let began = run.now();
    let times = Histogram::new_with_bounds(1, 3_600_000_000_000, 3)?;
    *lock(&run.round) = Some(Round { kind, began, awaited, times, last: None });
    tokio::select! {
        () = ask(run, kind, &ranks) => {}
        _ = stop.requested() => {}
    }
    let round = lock(&run.round).take();
    Ok(result(ranks.len(), round))
}

async fn ask(run: &Run, kind: Kind, ranks: &[u32]) {
    for some in ranks.chunks(BATCH) {
        for rank in some {
            let due = run.now();
            run.order(*rank, if kind == Kind::Ping { Task::Ping(due) } else { Task::Send(due) });
        }
        tokio::task::yield_now().await;
    }
    let (mut left, mut since) = (usize::MAX, Instant::now());
    loop {
        let now = lock(&run.round).as_ref().map_or(0, |round| round.awaited.len());
        if now < left {
            (left, since) = (now, Instant::now());
        }
        if left == 0 || since.elapsed() > PATIENCE {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn result(asked: usize, round: Option<Round>) -> Probe {
    let asked = asked as u64;
    let Some(round) = round else {
        return Probe { asked, answered: 0, seconds: None, round_trip_seconds: None };
    };
    Probe {
        asked,
        answered: round.times.len(),
        seconds: round.last.map(|last| (last - round.began) as f64 / 1e9),
        round_trip_seconds: Percentiles::of(&round.times),
    }
}

pub(super) fn ping_payload(rank: u32, due: u64) -> [u8; PING] {
    let mut payload = [0; PING];
    payload[..4].copy_from_slice(&rank.to_be_bytes());
    payload[4..].copy_from_slice(&due.to_be_bytes());
    payload
}

/// When the ping was due that this pong answers, if it was one of connection `rank`.
pub(super) fn ping_due(payload: &[u8], rank: u32) -> Option<u64> {
    let (of, due) = payload.split_at_checked(4)?;
    let due = due.try_into().ok().map(u64::from_be_bytes);
    (of == rank.to_be_bytes()).then_some(due).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_answers_the_ping_of_its_connection_only() {
        let payload = ping_payload(7, 123_456_789_012);
        assert_eq!(ping_due(&payload, 7), Some(123_456_789_012));
        assert_eq!(ping_due(&payload, 8), None);
        assert_eq!(ping_due(&payload[..11], 7), None);
        assert_eq!(ping_due(b"", 0), None);
    }
}
