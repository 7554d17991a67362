//! What all connections of a run share: what is to be done, what happened so far, and who is there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use super::bits::Bits;
use super::client::{OpenError, Opened};
use super::mailbox::{Mailbox, Order, Task};
use super::message::Maker;
use super::probe::Round;
use super::report::Connections;
use super::target::Target;
use super::tls::Tls;
use super::totals::Totals;
use super::{LoadError, Options};

/// Connections from one source address.
const BLOCK: u32 = 256;

/// A histogram of nanoseconds.
pub(super) struct Times(Mutex<Histogram<u64>>);

impl Times {
    /// Up to an hour, to three significant digits.
    fn new() -> Result<Self, LoadError> {
        Ok(Self(Mutex::new(Histogram::new_with_bounds(1, 3_600_000_000_000, 3)?)))
    }

    pub(super) fn record(&self, time: Duration) {
        self.lock().saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        lock(&self.0)
    }
}

/// Connections by what became of them; the names are those of the report.
#[derive(Default)]
pub(super) struct Fates {
    pub(super) requested: AtomicU64,
    pub(super) opened: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) closed_by_peer: AtomicU64,
    pub(super) aborted: AtomicU64,
    pub(super) recycled: AtomicU64,
    pub(super) http2_connections: AtomicU64,
}

impl Fates {
    pub(super) fn report(&self) -> Connections {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Connections {
            requested: value(&self.requested),
            opened: value(&self.opened),
            failed: value(&self.failed),
            refused: value(&self.refused),
            closed_by_peer: value(&self.closed_by_peer),
            aborted: value(&self.aborted),
            recycled: value(&self.recycled),
        }
    }
}

/// How ranks are spread over bundles.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// In turn.
    Dealt { bundles: u32 },
    /// So many to each, one after the other.
    Packed { streams: u32 },
}

impl Shape {
    /// The bundle and the slot of connection `rank`.
    pub(super) fn place(self, rank: u32) -> (usize, u32) {
        match self {
            Self::Dealt { bundles } => ((rank % bundles) as usize, rank / bundles),
            Self::Packed { streams } => ((rank / streams) as usize, rank % streams),
        }
    }

    /// The other way round.
    pub(super) fn rank(self, bundle: u32, slot: u32) -> u32 {
        match self {
            Self::Dealt { bundles } => slot * bundles + bundle,
            Self::Packed { streams } => bundle * streams + slot,
        }
    }
}

pub(super) struct Run {
    pub(super) options: Options,
    pub(super) targets: Vec<Target>,
    pub(super) tls: Option<Tls>,
    pub(super) maker: Maker,
    pub(super) shape: Shape,
    began: Instant,
    pub(super) totals: Arc<Totals>,
    pub(super) fates: Fates,
    /// Connections that were to be recycled and were not there.
    pub(super) not_recycled: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
    pub(super) connect_times: Times,
    pub(super) handshake_times: Times,
    pub(super) echo_times: Times,
    pub(super) storm_times: Times,
    pub(super) storm_began: OnceLock<Instant>,
    /// Messages are being sent.
    pub(super) sending: AtomicBool,
    /// Echoes that came meanwhile.
    pub(super) echoes: AtomicU64,
    closing: AtomicBool,
    pub(super) mailboxes: Mutex<Vec<Arc<Mailbox>>>,
    open: Mutex<Bits>,
    /// Connections being opened, and open.
    pub(super) alive: AtomicUsize,
    /// Notified when `alive` falls.
    pub(super) fewer: Notify,
    pub(super) round: Mutex<Option<Round>>,
}

impl Run {
    pub(super) fn new(
        options: Options,
        targets: Vec<Target>,
        tls: Option<Tls>,
    ) -> Result<Arc<Self>, LoadError> {
        let shape = match options.streams_per_connection {
            Some(streams) => Shape::Packed { streams },
            None => {
                let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
                Shape::Dealt { bundles: processors.min(options.connections).max(1) }
            }
        };
        Ok(Arc::new(Self {
            maker: Maker::new(options.sizes.clone(), options.binary, options.payload, options.seed),
            targets,
            tls,
            shape,
            began: Instant::now(),
            totals: Arc::default(),
            fates: Fates::default(),
            not_recycled: AtomicU64::new(0),
            errors: Mutex::default(),
            connect_times: Times::new()?,
            handshake_times: Times::new()?,
            echo_times: Times::new()?,
            storm_times: Times::new()?,
            storm_began: OnceLock::new(),
            sending: AtomicBool::new(false),
            echoes: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            mailboxes: Mutex::default(),
            open: Mutex::default(),
            alive: AtomicUsize::new(0),
            fewer: Notify::new(),
            round: Mutex::new(None),
            options,
        }))
    }

    /// Nanoseconds since the run began.
    pub(super) fn now(&self) -> u64 {
        self.since(Instant::now())
    }

    pub(super) fn since(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.began).as_nanos() as u64
    }

    /// Where connection `rank` goes; an HTTP/2 connection goes where its first stream does.
    pub(super) fn target(&self, rank: u32) -> &Target {
        &self.targets[rank as usize % self.targets.len()]
    }

    /// The block of source addresses of TCP connection number `index`.
    pub(super) fn block(&self, index: u32) -> u32 {
        self.options.first_source.wrapping_add(index / BLOCK)
    }

    /// Whether `rank` is among the `share` of connections of whom something is asked. Depends on the seed only.
    pub(super) fn chosen(&self, rank: u32, share: f64, what: u64) -> bool {
        let seed =
            self.options.seed ^ what.rotate_left(32) ^ u64::from(rank).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        share > 0.0 && fastrand::Rng::with_seed(seed).f64() < share
    }

    pub(super) fn order(&self, rank: u32, task: Task) {
        let (bundle, slot) = self.shape.place(rank);
        self.mailbox(bundle).order(Order { slot, task });
    }

    /// The run is ending: who comes now is to go at once.
    pub(super) fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Reaches bundle `index`; made when it is first asked for.
    pub(super) fn mailbox(&self, index: usize) -> Arc<Mailbox> {
        let mut mailboxes = lock(&self.mailboxes);
        while mailboxes.len() <= index {
            mailboxes.push(Arc::default());
        }
        mailboxes[index].clone()
    }

    /// Connection `rank` is open, after so long for TCP and TLS and for the handshake.
    pub(super) fn opened(&self, rank: u32, handshake: Duration) {
        count(&self.fates.opened);
        self.handshake_times.record(handshake);
        if let Some(began) = self.storm_began.get() {
            self.storm_times.record(began.elapsed());
        }
        lock(&self.open).insert(rank);
    }

    /// The same over TCP of its own.
    pub(super) fn joined(&self, rank: u32, opened: Opened) {
        let (connect, handshake) = opened.times;
        self.connect_times.record(connect);
        self.opened(rank, handshake);
        self.order(rank, Task::Join(Box::new(opened)));
    }

    /// A connection did not open.
    pub(super) fn not_opened(&self, error: &OpenError) {
        count(if error.is_refusal() { &self.fates.refused } else { &self.fates.failed });
        self.count_error(&error.kind());
        self.one_fewer();
    }

    /// Connection `rank` has ended.
    pub(super) fn left(&self, rank: u32) {
        lock(&self.open).remove(rank);
        self.one_fewer();
    }

    fn one_fewer(&self) {
        self.alive.fetch_sub(1, Ordering::AcqRel);
        self.fewer.notify_one();
    }

    /// Connections to be opened now.
    pub(super) fn request(&self, connections: usize) {
        self.fates.requested.fetch_add(connections as u64, Ordering::Relaxed);
        self.alive.fetch_add(connections, Ordering::AcqRel);
    }

    /// Who is open.
    pub(super) fn open_ranks(&self) -> Vec<u32> {
        lock(&self.open).ranks()
    }

    /// Whether nothing is being opened.
    pub(super) fn is_settled(&self) -> bool {
        lock(&self.open).len() == self.alive.load(Ordering::Acquire)
    }

    pub(super) fn count_error(&self, kind: &str) {
        self.count_errors(kind, 1);
    }

    pub(super) fn count_errors(&self, kind: &str, count: u64) {
        if count > 0 {
            *lock(&self.errors).entry(kind.to_owned()).or_default() += count;
        }
    }

    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        lock(&self.errors).clone()
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Nothing panics while holding one of these, and what they guard is whole at every point.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_a_slot_of_its_own() {
        for shape in [Shape::Dealt { bundles: 3 }, Shape::Packed { streams: 4 }] {
            let places: std::collections::BTreeSet<_> = (0..24).map(|rank| shape.place(rank)).collect();
            assert_eq!(places.len(), 24);
            assert!(places.iter().all(|(bundle, slot)| {
                shape.place(shape.rank(*bundle as u32, *slot)) == (*bundle, *slot)
            }));
        }
    }
}
