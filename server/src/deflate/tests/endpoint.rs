//! tungstenite over an adapter over a stream that gives and takes as it likes.

use std::io;

use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::peer::Rng;
use crate::deflate::{Adapter, Agreed, Direction, Kept, Settings};

/// An engine over an adapter over a stream that gives and takes as it likes.
pub(super) struct Endpoint {
    pub(super) engine: WebSocketContext,
    pub(super) stream: Stream,
}

pub(super) struct Stream {
    pub(super) adapter: Adapter,
    rng: Rng,
    pub(super) incoming: Vec<u8>,
    pub(super) at: usize,
    pub(super) outgoing: Vec<u8>,
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { adapter, rng, incoming, at, .. } = self;
        adapter.read(buffer, |buffer| {
            let left = &incoming[*at..];
            if left.is_empty() || rng.chance(5) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let most = [1, 3, 50, 5_000][rng.below(4)];
            let count = (1 + rng.below(most)).min(left.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&left[..count]);
            *at += count;
            Ok(count)
        })
    }
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { adapter, rng, outgoing, .. } = self;
        adapter.write(bytes, |bytes| take(rng, outgoing, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self { adapter, rng, outgoing, .. } = self;
        adapter.settle(|bytes| take(rng, outgoing, bytes))
    }
}

fn take(rng: &mut Rng, outgoing: &mut Vec<u8>, bytes: &[u8]) -> io::Result<usize> {
    if rng.chance(4) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let most = [1, 100, 100_000][rng.below(3)];
    let count = (1 + rng.below(most)).min(bytes.len());
    outgoing.extend(&bytes[..count]);
    Ok(count)
}

impl Endpoint {
    pub(super) fn new(role: Role, kept: Kept, settings: &Settings, seed: u64) -> Self {
        let stream = Stream {
            adapter: Adapter::new(role, kept, settings),
            rng: Rng::new(seed),
            incoming: Vec::new(),
            at: 0,
            outgoing: Vec::new(),
        };
        Self { engine: engine(role), stream }
    }

    pub(super) fn read(&mut self) -> Result<Message, Error> {
        loop {
            match self.engine.read(&mut self.stream) {
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stream.at == self.stream.incoming.len() {
                        return Err(error.into());
                    }
                }
                outcome => return outcome,
            }
        }
    }

    pub(super) fn write(&mut self, message: Message) {
        match self.engine.write(&mut self.stream, message) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => outcome.unwrap(),
        }
    }

    pub(super) fn flush(&mut self) {
        while let Err(error) = self.engine.flush(&mut self.stream) {
            assert!(matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock));
        }
    }

    /// Set aside and brought back: another adapter and engine.
    pub(super) fn renew(&mut self, role: Role, settings: &Settings) {
        self.stream.adapter.rest();
        let seed =
            Agreed::new(Direction { bits: 15, takeover: true }, Direction { bits: 15, takeover: true });
        let blank = Adapter::new(role, seed.into(), settings);
        let kept = std::mem::replace(&mut self.stream.adapter, blank).into_kept();
        self.stream.adapter = Adapter::new(role, kept, settings);
        self.engine = engine(role);
    }
}

fn engine(role: Role) -> WebSocketContext {
    WebSocketContext::new(role, Some(WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0)))
}
