//! Where events come from. Whatever it is, it ends up as [`Envelope`](agent::document::Envelope)s on a channel.

mod lines;
mod local;
mod replay;
mod socket;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use agent::cli::{Exit, Failure};
use agent::daemon::{DEFAULT_SOCKET, Events, Running};

use crate::Options;

/// Events read ahead of the reader. Bounded, so that a recording of any size is replayed in constant memory.
const READ_AHEAD: usize = 1024;

/// A stream of events and, once it has ended, why.
#[derive(Debug)]
pub struct Stream {
    /// The events; disconnected when the stream has ended.
    pub events: Events,
    producer: Option<JoinHandle<anyhow::Result<()>>>,
    /// The agent, where it runs in this process: it ends with the stream.
    agent: Option<Running>,
}

impl Stream {
    /// A stream whose producer has nothing to say about its end.
    pub fn new(events: Events) -> Self {
        Self { events, producer: None, agent: None }
    }

    fn produced(events: Events, producer: JoinHandle<anyhow::Result<()>>) -> Self {
        Self { events, producer: Some(producer), agent: None }
    }

    /// Why the stream ended: an error, or nothing more to come. Call it once [`Stream::events`] is disconnected; before
    /// that it waits.
    pub fn finish(self) -> anyhow::Result<()> {
        drop(self.events);
        drop(self.agent);
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
    } else if options.needs_no_agent_of_its_own() && daemon_listens() {
        socket::open(Path::new(DEFAULT_SOCKET))
    } else {
        local::open(options)
    }
}

/// Whether a daemon's socket is where it is expected, and somebody behind it.
fn daemon_listens() -> bool {
    UnixStream::connect(DEFAULT_SOCKET).is_ok()
}
