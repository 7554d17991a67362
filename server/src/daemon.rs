//! The reference WebSocket server: `/` and `/echo` echo, `/broadcast` and `/broadcast/NAME` relay to the others on that
//! path, `/sink` takes everything and says nothing.
//!
//! A connection on which something happens has a task and an engine ([`session`]); an idle one is 32 bytes in a table
//! ([`table`]) and an open descriptor, served with all the others by a few tasks ([`lot`]). Neither has a timer or a channel:
//! pings, shutdown and relayed messages reach both through the [`roster`], and the [`quiet`] clock says when one becomes
//! the other.

mod accept;
mod broadcast;
mod carrier;
mod census;
mod complaints;
mod door;
mod farewell;
mod figures;
mod http2;
mod listen;
mod lot;
mod member;
mod metrics;
mod pages;
pub mod policy;
mod quiet;
mod rooms;
mod roster;
mod scrapes;
mod seat;
mod session;
mod table;
mod tls;
mod upgrade;
mod wire;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::signals::{Request, Signals};
use crate::{deflate, notify};
use census::{Census, Over};
use complaints::Complaints;
use door::{Door, Full, Porter};
use figures::Figures;
pub use listen::Listener;
use policy::Policy;
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
    /// Connections held at once from one IPv4 address or one IPv6 network of 64 bits; one more is answered with 429.
    pub max_per_address: Option<u32>,
    /// Who may come in and where to.
    pub policy: Policy,
    /// Rooms there may be at once; a request for one more is answered with 503.
    pub max_rooms: usize,
    /// Messages that a room keeps for slow members.
    pub room_messages: usize,
    /// Payload bytes that it keeps for them; the last message is kept whatever its size.
    pub room_bytes: usize,
    /// What becomes of a member that falls further behind.
    pub slow_consumer: SlowConsumer,
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

/// What becomes of a member of a room that cannot keep up with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SlowConsumer {
    /// It loses the oldest messages.
    Drop,
    /// Its connection ends with 1008.
    Close,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(30),
            ping_payload: 0,
            pong_timeout: None,
            max_connections: usize::MAX,
            max_per_address: None,
            policy: Policy::default(),
            max_rooms: 1024,
            room_messages: 64,
            room_bytes: 16 << 20,
            slow_consumer: SlowConsumer::Drop,
            handshake_timeout: Duration::from_secs(10),
            max_message: 1 << 20,
            drain_timeout: Duration::from_secs(5),
            idle_after: Duration::from_millis(100),
            deflate: None,
            http2_idle_timeout: Duration::from_secs(60),
            http2_max_streams: 1000,
        }
    }
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
    porter: Porter,
    census: Census,
    /// Notified whenever the last connection goes.
    empty: Notify,
}

impl Shared {
    /// Sums of a figure over all listeners.
    fn sum(&self, figure: impl Fn(&Figures) -> u64) -> u64 {
        self.roster.figures.iter().map(figure).sum()
    }

    /// The figures of the listener that a connection came in by.
    fn figures(&self, door: Door) -> &Figures {
        &self.roster.figures[door.listener()]
    }
}

/// A place among the connections that are let in, given back on drop.
struct Slot {
    shared: Arc<Shared>,
    door: Door,
    /// Once it is a WebSocket: what carries it.
    over: Option<Over>,
    held: bool,
}

impl Slot {
    /// For a connection from `address` to the listener of that number.
    fn take(shared: &Arc<Shared>, listener: usize, address: IpAddr) -> Result<Self, Full> {
        let door = shared.porter.enter(listener, address)?;
        Ok(Self { shared: shared.clone(), door, over: None, held: true })
    }

    /// For one more that comes the same way: a stream.
    fn beside(&self) -> Result<Self, Full> {
        let door = self.shared.porter.enter_beside(self.door)?;
        Ok(Self { shared: self.shared.clone(), door, over: None, held: true })
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
    fn resume(shared: &Arc<Shared>, over: Over, door: Door) -> Self {
        Self { shared: shared.clone(), door, over: Some(over), held: true }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        if let Some(over) = self.over {
            self.shared.census.remove(over);
        }
        if self.shared.porter.leave(self.door) {
            self.shared.empty.notify_one();
        }
    }
}

/// A server with sockets that listen.
pub struct Server {
    /// Each with whether it is for TLS.
    listeners: Vec<(TcpListener, bool)>,
    /// As they are named in the metrics.
    names: Arc<[String]>,
    tls: Option<Arc<Tls>>,
    metrics: Option<TcpListener>,
    shared: Arc<Shared>,
}

impl Server {
    /// Is about to serve what `listeners` bring, those for TLS with `tls`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Those of epoll_create(2).
    pub fn new(listeners: Vec<Listener>, tls: Option<Tls>, options: Options) -> io::Result<Self> {
        let tls = tls.map(Arc::new);
        let names = listeners.iter().map(Listener::to_string).collect();
        let listeners = listeners.into_iter().map(|listener| {
            let secure = listener.is_secure();
            Ok((TcpListener::from_std(listener.into_std()?)?, secure))
        });
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        if listeners.len() > Door::MAX_LISTENERS {
            return Err(io::Error::other(format!("more than {} sockets to listen on", Door::MAX_LISTENERS)));
        }
        let figures = listeners.iter().map(|_| Figures::default()).collect();
        let shared = Arc::new(Shared {
            roster: Roster::new(&options, figures)?,
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            porter: Porter::new(options.max_connections, options.max_per_address),
            census: Census::default(),
            empty: Notify::new(),
            options,
        });
        Ok(Self { listeners, names, tls, metrics: None, shared })
    }

    /// Answers scrapes on `listener` as long as it serves.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn measured(self, listener: Listener) -> io::Result<Self> {
        Ok(Self { metrics: Some(TcpListener::from_std(listener.into_std()?)?), ..self })
    }

    /// Serves until a signal asks for an end; then every peer gets Close 1001 and [`Options::drain_timeout`] to answer.
    /// A second signal ends the wait.
    pub async fn serve(self, mut signals: Signals) {
        let Self { listeners, names, tls, metrics, shared } = self;
        let scrapes = metrics.map(|listener| tokio::spawn(scrapes::serve(listener, shared.clone(), names)));
        let lot = tokio::spawn({
            let shared = shared.clone();
            async move { lot::serve(&shared).await }
        });
        let mut accepting = JoinSet::new();
        for (number, (listener, secure)) in listeners.into_iter().enumerate() {
            let (tls, shared) = (tls.clone().filter(|_| secure), shared.clone());
            accepting
                .spawn(async move { accept::accept_all(&listener, number, tls.as_ref(), &shared).await });
        }
        let mut complaints = Complaints::default();
        let reason = loop {
            let request = tokio::select! {
                request = signals.next() => request,
                never = complaints.watch(&shared) => match never {},
            };
            match request {
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
        info!(name: "closing", reason, open = shared.porter.open(), "closing");
        let drained = async {
            lot::drain(&shared).await;
            while shared.porter.open() > 0 {
                shared.empty.notified().await;
            }
        };
        tokio::select! {
            _ = drained => {}
            _ = tokio::time::sleep(shared.options.drain_timeout) => {
                warn!(name: "drain_timeout", open = shared.porter.open(), "peers did not close in time");
            }
            _ = signals.stop() => {}
        }
        complaints.complain(&shared);
        lot.abort();
        scrapes.into_iter().for_each(|scrapes| scrapes.abort());
        info!(
            name: "closed",
            accepted = shared.sum(|figures| figures.accepted.get()),
            refused = shared.sum(Figures::all_refused),
            ping_timeouts = shared.sum(|figures| figures.ping_timeouts.get()),
            relay_dropped = shared.sum(|figures| figures.relay_dropped.get()),
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
        let mut options = Options::default();
        assert_eq!(options.missed_limit(), 2);
        for (seconds, pings) in [(1, 1), (30, 1), (31, 2), (60, 2), (90, 3)] {
            options.pong_timeout = Some(Duration::from_secs(seconds));
            assert_eq!(options.missed_limit(), pings);
        }
        options.ping_interval = Duration::ZERO;
        assert_eq!(options.missed_limit(), u32::MAX);
    }
}
