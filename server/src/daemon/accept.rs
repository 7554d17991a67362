//! The accept loop, and what happens to a connection until it is a WebSocket.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::Shutdown;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{timeout, timeout_at};
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::carrier::Carrier;
use super::census::Over;
use super::figures::Failed;
use super::http2;
use super::member::Member;
use super::session::Session;
use super::tls::{self, Sealed, Tls};
use super::upgrade::{self, Gate, Refusal, UpgradeError, Upgraded};
use super::{Shared, Slot};

/// Time a refused or failed peer has to read the reason before the socket goes.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Accepts for ever. Failures (no descriptor left, a peer gone before accept) are logged once a second at most and
/// waited out: the listener stays readable, so retrying at once would spin.
///
/// Those with `tls` begin with its handshake.
pub(super) async fn accept_all(
    listener: &TcpListener,
    number: usize,
    tls: Option<&Arc<Tls>>,
    shared: &Arc<Shared>,
) -> Infallible {
    let mut last_logged: Option<Instant> = None;
    let mut failures = 0_u64;
    loop {
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // The peer gave up while queued: its problem alone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                failures += 1;
                if last_logged.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
                    last_logged = Some(Instant::now());
                    let open = shared.porter.open();
                    warn!(name: "accept_failed", %error, failures, open, "cannot accept connections");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let figures = &shared.roster.figures[number];
        match Slot::take(shared, number, peer.ip()) {
            Ok(slot) => {
                figures.accepted.add(1);
                // A task of its own, not the session's: its larger future dies with the handshake.
                tokio::spawn(admit(tcp, tls.cloned(), slot));
            }
            Err(full) => {
                figures.refuse(full.into());
                if let Ok(permit) = shared.refusals.clone().try_acquire_owned() {
                    let (shared, tls) = (shared.clone(), tls.cloned());
                    tokio::spawn(async move {
                        turn_away(tcp, tls, shared, full.into()).await;
                        drop(permit);
                    });
                }
            }
        }
    }
}

/// What a connection turned out to be.
enum Entered {
    WebSocket(TcpStream, Upgraded),
    Sealed(TlsStream<TcpStream>, Upgraded),
    /// With what has been read of it.
    Http2(TcpStream, Vec<u8>),
    SealedHttp2(TlsStream<TcpStream>),
    /// Its request is answered, and that was all.
    Answered(TcpStream),
    SealedAnswered(Sealed),
}

async fn admit(tcp: TcpStream, tls: Option<Arc<Tls>>, mut slot: Slot) {
    let shared = slot.shared.clone();
    // Nagle would hold a small frame back until the previous one is acknowledged.
    if let Err(error) = tcp.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY");
    }
    let member = Member::socket(tcp.as_raw_fd());
    let deadline = tokio::time::Instant::now() + shared.options.handshake_timeout;
    let gate = Gate { shared: &shared, member, figures: Some(shared.figures(slot.door)), refusal: None };
    let entered = match timeout_at(deadline, enter(tcp, tls, &gate)).await {
        Ok(Some(entered)) => entered,
        Ok(None) => return,
        Err(_) => {
            gate.failed(Failed::Timeout);
            return debug!("no upgrade within the time allowed");
        }
    };
    match entered {
        Entered::WebSocket(tcp, upgraded) => {
            slot.serve(Over::Http1);
            Session::start(tcp, upgraded, slot);
        }
        Entered::Sealed(stream, upgraded) => match Sealed::new(stream) {
            Ok(sealed) => {
                slot.serve(Over::Http1Tls);
                Session::start(sealed, upgraded, slot);
            }
            Err(error) => debug!(%error, "TLS failed after the upgrade"),
        },
        Entered::Http2(tcp, received) => http2::serve(tcp, received, Over::Http2, deadline, slot),
        Entered::SealedHttp2(stream) => http2::serve(stream, Vec::new(), Over::Http2Tls, deadline, slot),
        // The descriptor, and so the place, is in use until the peer has read the answer.
        Entered::Answered(tcp) => linger(tcp).await,
        Entered::SealedAnswered(sealed) => sealed.abandon().await,
    }
}

/// Finds out what the peer wants; a request of HTTP/1.1 is answered. `None` when the connection is of no use.
async fn enter(mut tcp: TcpStream, tls: Option<Arc<Tls>>, gate: &Gate<'_>) -> Option<Entered> {
    let Some(tls) = tls else {
        let mut received = Vec::with_capacity(1024);
        let answered = match http2::preface(&mut tcp, &mut received).await {
            Ok(true) => return Some(Entered::Http2(tcp, received)),
            Ok(false) => upgrade::answer(&mut tcp, received, gate).await,
            Err(error) => Err(UpgradeError::Io(error)),
        };
        return match answered {
            Ok(upgraded) => Some(Entered::WebSocket(tcp, upgraded)),
            Err(error) => {
                debug!(%error, "no upgrade");
                error.why().into_iter().for_each(|why| gate.failed(why));
                Some(Entered::Answered(tcp))
            }
        };
    };
    let mut stream = match tls.accept(tcp).await {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%error, "no TLS");
            gate.failed(Failed::Transport);
            return None;
        }
    };
    if tls::is_http2(&stream) {
        return Some(Entered::SealedHttp2(stream));
    }
    match upgrade::answer(&mut stream, Vec::with_capacity(1024), gate).await {
        Ok(upgraded) => Some(Entered::Sealed(stream, upgraded)),
        Err(error) => {
            debug!(%error, "no upgrade");
            error.why().into_iter().for_each(|why| gate.failed(why));
            Sealed::new(stream).ok().map(Entered::SealedAnswered)
        }
    }
}

/// Reads the request, so that the peer gets to see the answer instead of a reset, and answers with `refusal`. One that speaks HTTP/2 is
/// not answered.
async fn turn_away(tcp: TcpStream, tls: Option<Arc<Tls>>, shared: Arc<Shared>, refusal: Refusal) {
    let member = Member::socket(tcp.as_raw_fd());
    let gate = Gate { shared: &shared, member, figures: None, refusal: Some(refusal) };
    let within = shared.options.handshake_timeout.min(Duration::from_secs(2));
    match timeout(within, enter(tcp, tls, &gate)).await {
        Ok(Some(Entered::Answered(tcp))) => linger(tcp).await,
        Ok(Some(Entered::SealedAnswered(sealed))) => sealed.abandon().await,
        // The end is all that is left.
        _ => {}
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
