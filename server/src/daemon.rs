//! The reference WebSocket server: `/` and `/echo` echo, `/broadcast` relays to the others on that path.
//!
//! A connection on which something happens has a task and an engine ([`session`]); an idle one is 32 bytes in a table
//! ([`table`]) and an open descriptor, served with all the others by a few tasks ([`lot`]). Neither has a timer or a channel:
//! pings, shutdown and relayed messages reach both through the [`roster`], and the [`quiet`] clock says when one becomes
//! the other.

mod accept;
mod broadcast;
mod carrier;
mod census;
mod http2;
mod listen;
mod lot;
mod member;
mod pages;
mod quiet;
mod roster;
mod session;
mod table;
mod tls;
mod upgrade;
mod wire;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::signals::{Request, Signals};
use crate::{deflate, notify};
use census::{Census, Over};
pub use listen::Listener;
use roster::Roster;
pub use tls::Tls;

/// Refusals being delivered at once. Each holds a descriptor for a moment; a flood beyond this is simply dropped.
const MAX_REFUSALS: usize = 256;

/// How the server behaves. Durations of zero mean "never" where noted.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time between two pings on a connection; zero sends none.
    pub ping_interval: Duration,
    /// Ping payload in bytes, at most 125 (RFC 6455 section 5.5). From 8 bytes on it starts with a big-endian
    /// u64 that counts the connection's pings.
    pub ping_payload: usize,
    /// A peer silent for this long despite pings is dropped; `None` is two intervals. Checked when a ping is due.
    pub pong_timeout: Option<Duration>,
    /// Connections held at once; one more is answered with 503.
    pub max_connections: usize,
    /// Time a peer has for its HTTP upgrade.
    pub handshake_timeout: Duration,
    /// Largest incoming message in bytes; a larger one ends the connection with 1009.
    pub max_message: usize,
    /// How long shutdown waits for peers to answer the Close.
    pub drain_timeout: Duration,
    /// How long nothing happens on a connection before it is parked.
    pub idle_after: Duration,
    /// permessage-deflate; `None` declines every offer.
    pub deflate: Option<deflate::Settings>,
    /// How long an HTTP/2 connection may be without a stream.
    pub http2_idle_timeout: Duration,
    /// Streams a peer may have open on an HTTP/2 connection.
    pub http2_max_streams: u32,
}

impl Options {
    /// Pings that may go unanswered before a peer is given up.
    fn missed_limit(&self) -> u32 {
        let Some(timeout) = self.pong_timeout else {
            return 2;
        };
        let interval = self.ping_interval.as_secs_f64();
        if interval == 0.0 {
            return u32::MAX;
        }
        // `as` saturates, which is what an absurd quotient should do.
        ((timeout.as_secs_f64() / interval).ceil() as u32).max(1)
    }
}

/// What every connection shares.
struct Shared {
    options: Options,
    roster: Roster,
    refusals: Arc<Semaphore>,
    open: AtomicUsize,
    census: Census,
    /// Notified whenever the last connection goes.
    empty: Notify,
}

/// What happened so far, for the log.
#[derive(Default)]
struct Totals {
    accepted: AtomicU64,
    refused: AtomicU64,
    ping_timeouts: AtomicU64,
    relay_dropped: AtomicU64,
}

/// A place among the `max_connections`, given back on drop.
struct Slot {
    shared: Arc<Shared>,
    /// Once it is a WebSocket: what carries it.
    over: Option<Over>,
    held: bool,
}

impl Slot {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let limit = shared.options.max_connections;
        shared
            .open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < limit).then_some(open + 1))
            .is_ok()
            .then(|| Self { shared: shared.clone(), over: None, held: true })
    }

    /// Its connection is a WebSocket from now on.
    fn serve(&mut self, over: Over) {
        self.over = Some(over);
        self.shared.census.add(over);
    }

    /// Keeps the place for a connection that has nowhere to hold it.
    fn suspend(mut self) {
        self.held = false;
    }

    /// The place of such a connection.
    fn resume(shared: &Arc<Shared>, over: Over) -> Self {
        Self { shared: shared.clone(), over: Some(over), held: true }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(over) = self.over.filter(|_| self.held) {
            self.shared.census.remove(over);
        }
        if self.held && self.shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.empty.notify_one();
        }
    }
}

/// A server with sockets that listen.
pub struct Server {
    /// Each with whether it is for TLS.
    listeners: Vec<(TcpListener, bool)>,
    tls: Option<Arc<Tls>>,
    shared: Arc<Shared>,
}

impl Server {
    /// Is about to serve what `listeners` bring, those for TLS with `tls`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Those of epoll_create(2).
    pub fn new(listeners: Vec<Listener>, tls: Option<Tls>, options: Options) -> io::Result<Self> {
        let tls = tls.map(Arc::new);
        let listeners = listeners.into_iter().map(|listener| {
            let secure = listener.is_secure();
            Ok((TcpListener::from_std(listener.into_std()?)?, secure))
        });
        let listeners = listeners.collect::<io::Result<_>>()?;
        let shared = Arc::new(Shared {
            roster: Roster::new(&options)?,
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            open: AtomicUsize::new(0),
            census: Census::default(),
            empty: Notify::new(),
            options,
        });
        Ok(Self { listeners, tls, shared })
    }

    /// Serves until a signal asks for an end; then every peer gets Close 1001 and [`Options::drain_timeout`] to answer.
    /// A second signal ends the wait.
    pub async fn serve(self, mut signals: Signals) {
        let Self { listeners, tls, shared } = self;
        let lot = tokio::spawn({
            let shared = shared.clone();
            async move { lot::serve(&shared).await }
        });
        let mut accepting = JoinSet::new();
        for (listener, secure) in listeners {
            let (tls, shared) = (tls.clone().filter(|_| secure), shared.clone());
            accepting.spawn(async move { accept::accept_all(&listener, tls.as_ref(), &shared).await });
        }
        let reason = loop {
            match signals.next().await {
                Request::Stop(reason) => break reason,
                Request::Reload => {
                    notify::reloading();
                    match &tls {
                        Some(tls) => tls.reload(),
                        None => info!(name: "reload", "nothing to read again"),
                    }
                    notify::ready();
                }
            }
        };
        notify::stopping();
        accepting.shutdown().await;
        info!(reason, open = shared.open.load(Ordering::Acquire), "closing");
        let drained = async {
            lot::drain(&shared).await;
            while shared.open.load(Ordering::Acquire) > 0 {
                shared.empty.notified().await;
            }
        };
        tokio::select! {
            _ = drained => {}
            _ = tokio::time::sleep(shared.options.drain_timeout) => {
                warn!(open = shared.open.load(Ordering::Acquire), "peers did not close in time");
            }
            _ = signals.stop() => {}
        }
        lot.abort();
        let totals = &shared.roster.totals;
        info!(
            accepted = totals.accepted.load(Ordering::Relaxed),
            refused = totals.refused.load(Ordering::Relaxed),
            ping_timeouts = totals.ping_timeouts.load(Ordering::Relaxed),
            relay_dropped = totals.relay_dropped.load(Ordering::Relaxed),
            parkings = shared.roster.parkings.load(Ordering::Relaxed),
            "closed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pong_timeout_becomes_whole_pings() {
        let mut options = Options {
            ping_interval: Duration::from_secs(30),
            ping_payload: 0,
            pong_timeout: None,
            max_connections: 1,
            handshake_timeout: Duration::from_secs(1),
            max_message: 1,
            drain_timeout: Duration::from_secs(1),
            idle_after: Duration::from_secs(1),
            deflate: None,
            http2_idle_timeout: Duration::from_secs(1),
            http2_max_streams: 1,
        };
        assert_eq!(options.missed_limit(), 2);
        for (seconds, pings) in [(1, 1), (30, 1), (31, 2), (60, 2), (90, 3)] {
            options.pong_timeout = Some(Duration::from_secs(seconds));
            assert_eq!(options.missed_limit(), pings);
        }
        options.ping_interval = Duration::ZERO;
        assert_eq!(options.missed_limit(), u32::MAX);
    }
}
