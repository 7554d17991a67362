//! Opening connections: at a steady rate, so many at once, and again where one has ended to come back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::bundle::Bundle;
use super::run::{Run, Shape};
use super::{LoadError, client, http2};

/// Handshakes under way at once; more would only queue in the server's backlog and fall out of it.
const IN_FLIGHT: u32 = 512;
/// HTTP/2 connections among which streams are being opened.
const IN_FLIGHT_HTTP2: u32 = 32;

/// Starts the tasks that serve connections of their own.
pub(super) fn prepare(run: &Arc<Run>) -> Result<(), LoadError> {
    if let Shape::Dealt { bundles } = run.shape {
        for index in 0..bundles {
            let bundle = Bundle::of_sockets(run, run.mailbox(index as usize), index);
            tokio::spawn(bundle.map_err(LoadError::Epoll)?);
        }
    }
    Ok(())
}

/// Starts the connections of `ranks`, in order, at `rate` a second if there is one, and returns when each has opened or
/// failed.
pub(super) async fn open_all(run: &Arc<Run>, ranks: &[u32], rate: Option<f64>) {
    run.request(ranks.len());
    let start = Instant::now();
    let due = |index: usize| {
        let after = rate.map_or(0.0, |rate| index as f64 / rate);
        start.checked_add(Duration::try_from_secs_f64(after).unwrap_or(Duration::MAX)).unwrap_or(start)
    };
    let limit = if run.options.streams_per_connection.is_some() { IN_FLIGHT_HTTP2 } else { IN_FLIGHT };
    let in_flight = Arc::new(Semaphore::new(limit as usize));
    let mut index = 0;
    for some in ranks.chunk_by(|one, next| together(run.shape, *one, *next)) {
        tokio::time::sleep_until(due(index)).await;
        index += some.len();
        // The semaphore is never closed.
        let Ok(permit) = in_flight.clone().acquire_owned().await else { return };
        start_some(run, some, permit);
    }
    // All permits back: nothing is under way.
    let _ = in_flight.acquire_many(limit).await;
}

/// Whether two connections are opened in one go.
fn together(shape: Shape, one: u32, next: u32) -> bool {
    matches!(shape, Shape::Packed { .. }) && shape.place(one).0 == shape.place(next).0
}

fn start_some(run: &Arc<Run>, ranks: &[u32], permit: OwnedSemaphorePermit) {
    let Some(first) = ranks.first() else { return };
    match run.shape {
        Shape::Dealt { .. } => {
            tokio::spawn(open_one(run.clone(), *first, Some(permit)));
        }
        Shape::Packed { .. } => {
            let bundle = run.shape.place(*first).0 as u32;
            let slots = ranks.iter().map(|rank| run.shape.place(*rank).1).collect();
            tokio::spawn(http2::open(run.clone(), bundle, slots, permit));
        }
    }
}

/// Opens a connection of its own that has been counted as requested.
async fn open_one(run: Arc<Run>, rank: u32, permit: Option<OwnedSemaphorePermit>) {
    let (tls, deflate) = (run.tls.as_ref(), run.options.deflate.as_ref());
    match client::open(run.target(rank), tls, deflate, run.block(rank)).await {
        Ok(opened) => run.joined(rank, opened),
        Err(error) => run.not_opened(&error),
    }
    drop(permit);
}

/// The same for one that has ended to come back.
pub(super) fn again(run: &Arc<Run>, rank: u32) {
    tokio::spawn(open_one(run.clone(), rank, None));
}
