//! HTTP/2, and WebSockets on its streams (RFC 8441).
//!
//! One task serves a connection ([`driver`]): its frames, its requests and all its idle WebSockets. Of an idle one there is
//! what h2 has of its stream, and an entry in the task's list. When something happens on it, it becomes a
//! [`super::session::Session`] like any other, with a task of its own; when it is quiet again, it comes back. The rest of
//! the server reaches the connection through its [`Hub`].

mod driver;
mod errands;
mod hub;
mod incoming;
mod inlet;
mod parked;
mod stream;
mod unsent;

use std::io;

use h2::server::Builder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Bytes;
use tracing::debug;

use super::census::Over;
use super::figures::Failed;
use super::upgrade::MAX_REQUEST;
use super::{Options, Slot};
use driver::Driver;
pub(super) use hub::Hub;
use inlet::{Inlet, Valve};

/// What every client begins with. h2 checks the rest of it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Bytes that a peer may send on a stream, and on a connection, before we have read any.
///
/// The second bounds what one connection makes us keep, and how many frames are in h2's lists at once, which never shrink.
/// It grows while much is read, and by as much as streams hold that are not read for want of window in the other direction:
/// they stop nobody else.
const STREAM_WINDOW: u32 = 65_535;
const CONNECTION_WINDOW: u32 = 65_535;

/// Bytes on their way out that h2 keeps for a stream. [`unsent`] bounds the number of frames.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that a peer may reset before they were looked at: fewer than fit into what h2 is handed at once, or it would not
/// notice a peer that does nothing else (CVE-2023-44487).
const MAX_RESETS: usize = 6;
const _: () = assert!(MAX_RESETS < inlet::FRAMES as usize / 2);

/// Reads until it is clear whether the peer speaks HTTP/2; what has been read is in `received`.
pub(super) async fn preface(tcp: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<bool> {
    while PREFACE.starts_with(received) && received.len() < PREFACE.len() {
        if tcp.read_buf(received).await? == 0 {
            // For whoever reads on to find.
            return Ok(false);
        }
    }
    Ok(received.starts_with(PREFACE))
}

/// Serves an HTTP/2 connection that began with `received`. It has until `deadline` for its first request.
pub(super) fn serve<S>(io: S, received: Vec<u8>, over: Over, deadline: Instant, slot: Slot)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let valve = Valve::default();
    let io = Inlet::new(io, received, valve.clone());
    // A task of its own: that of the handshake may have been larger.
    tokio::spawn(async move {
        let handshake = settings(&slot.shared.options).handshake::<_, Bytes>(io);
        match timeout_at(deadline, handshake).await {
            Ok(Ok(connection)) => Driver::new(connection, valve, over, deadline, slot).await,
            Ok(Err(error)) => {
                debug!(%error, "no HTTP/2");
                slot.shared.figures(slot.door).fail(Failed::Transport);
            }
            Err(_) => {
                debug!("no HTTP/2 within the time allowed");
                slot.shared.figures(slot.door).fail(Failed::Timeout);
            }
        }
    });
}

fn settings(options: &Options) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(options.http2_max_streams)
        .max_header_list_size(MAX_REQUEST as u32)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}
