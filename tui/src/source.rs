//! Where events come from. Whatever it is, it ends up as [`Envelope`]s on a channel.

mod lines;
pub mod local;
mod replay;
mod socket;

use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use agent::cli::{Exit, Failure};
use agent::document::Envelope;

use crate::Options;

/// Events read ahead of the reader. Bounded, so that a recording of any size is replayed in constant memory.
const READ_AHEAD: usize = 1024;

/// A stream of events and, once it has ended, why.
#[derive(Debug)]
pub struct Stream {
    /// The events; disconnected when the stream has ended.
    pub events: Receiver<Envelope>,
    producer: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Stream {
    /// A stream whose producer has nothing to say about its end.
    pub fn new(events: Receiver<Envelope>) -> Self {
        Self {
            events,
            producer: None,
        }
    }

    fn produced(events: Receiver<Envelope>, producer: JoinHandle<anyhow::Result<()>>) -> Self {
        Self {
            events,
            producer: Some(producer),
        }
    }

    /// Why the stream ended: an error, or nothing more to come. Call it once [`Stream::events`] is disconnected; before
    /// that it waits.
    pub fn finish(self) -> anyhow::Result<()> {
        drop(self.events);
        match self.producer.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(Failure::new(Exit::Internal, "the reader of events panicked").into()),
        }
    }
}

/// Opens the source the options name. `replay_speed` is the factor for a recording, 0 as fast as possible.
pub fn open(options: &Options, replay_speed: f64) -> anyhow::Result<Stream> {
    if let Some(path) = &options.replay {
        replay::open(path, replay_speed)
    } else if let Some(path) = &options.agent {
        socket::open(path)
    } else {
        Ok(Stream::new(local::local(options)?))
    }
}
