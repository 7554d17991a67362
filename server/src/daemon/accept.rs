//! The accept loop, and what happens to a connection until it is a WebSocket.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::net::Shutdown;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::{debug, warn};

use super::session::Session;
use super::upgrade::{self, Upgraded};
use super::{Shared, Slot};
use crate::deflate::Adapter;
use crate::link::Link;

/// Time a refused or failed peer has to read the reason before the socket goes.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Accepts for ever. Failures (no descriptor left, a peer gone before accept) are logged once a second at most and
/// waited out: the listener stays readable, so retrying at once would spin.
pub(super) async fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) -> Infallible {
    let mut last_logged: Option<Instant> = None;
    let mut failures = 0_u64;
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            // The peer gave up while queued: its problem alone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                failures += 1;
                if last_logged.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
                    last_logged = Some(Instant::now());
                    let open = shared.open.load(Ordering::Relaxed);
                    warn!(%error, failures, open, "cannot accept connections");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match Slot::take(shared) {
            Some(slot) => {
                shared.roster.totals.accepted.fetch_add(1, Ordering::Relaxed);
                // A task of its own, not the session's: its larger future dies with the handshake.
                tokio::spawn(admit(tcp, slot));
            }
            None => {
                shared.roster.totals.refused.fetch_add(1, Ordering::Relaxed);
                if let Ok(permit) = shared.refusals.clone().try_acquire_owned() {
                    let shared = shared.clone();
                    tokio::spawn(async move {
                        turn_away(tcp, shared).await;
                        drop(permit);
                    });
                }
            }
        }
    }
}

async fn admit(mut tcp: TcpStream, slot: Slot) {
    let shared = slot.shared.clone();
    // Nagle would hold a small frame back until the previous one is acknowledged.
    if let Err(error) = tcp.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY");
    }
    let full = || shared.roster.draining();
    let settings = shared.options.deflate.as_ref();
    match timeout(shared.options.handshake_timeout, upgrade::answer(&mut tcp, full, settings)).await {
        Ok(Ok(Upgraded { path, deflate, tail })) => {
            let adapter = deflate
                .zip(settings)
                .map(|(agreed, settings)| Adapter::new(Role::Server, agreed.into(), settings));
            let link = Link::compressed(tcp, Role::Server, shared.options.max_message, tail, (), adapter);
            Session::start(link, path, slot);
        }
        Ok(Err(error)) => {
            debug!(%error, "no upgrade");
            linger(tcp).await;
        }
        Err(_) => debug!("no upgrade within the time allowed"),
    }
}

/// Reads the request, so that the peer gets to see the answer instead of a reset, and answers 503.
async fn turn_away(mut tcp: TcpStream, shared: Arc<Shared>) {
    let within = shared.options.handshake_timeout.min(Duration::from_secs(2));
    if timeout(within, upgrade::answer(&mut tcp, || true, None)).await.is_ok() {
        linger(tcp).await;
    }
}

/// Ends our direction and swallows what the peer still sends: closing with unread input would reset the connection
/// and destroy the answer on its way.
pub(super) async fn linger(mut tcp: TcpStream) {
    if rustix::net::shutdown(&tcp, Shutdown::Write).is_err() {
        return;
    }
    let swallow = async {
        let mut scratch = [0; 512];
        while tcp.read(&mut scratch).await.is_ok_and(|count| count > 0) {}
    };
    // Whether it finished or not, the socket goes now.
    let _ = timeout(LINGER, swallow).await;
}
