//! What one reader of the socket has not taken yet.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::document::{Envelope, SCHEMA, json};

/// Bytes that may wait for a reader. Readers that are equally slow share them: a line is kept once.
const MOST: usize = 16 << 20;

/// A line without its number: each reader counts for itself.
#[derive(Debug, Clone)]
pub(super) struct Line(Arc<[u8]>);

impl Line {
    pub(super) fn new(event: &Envelope) -> io::Result<Self> {
        let mut text = json::to_vec(event)?;
        text.push(b'\n');
        let start = start(event.seq);
        match text.strip_prefix(start.as_bytes()) {
            Some(rest) => Ok(Self(rest.into())),
            None => Err(io::Error::other("an event does not begin with its number")),
        }
    }
}

/// What an event begins with.
fn start(seq: u64) -> String {
    format!("{{\"schema\":\"{SCHEMA}\",\"seq\":{seq},")
}

/// Lines on their way to a reader.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<(u64, Line)>,
    bytes: usize,
    /// Lines that were taken so far.
    taken: u64,
    ended: bool,
}

impl Queue {
    /// Whether it found room. A line of any size does where nothing else waits.
    pub(super) fn push(&self, number: u64, line: Line) -> bool {
        let mut waiting = self.lock();
        if !waiting.lines.is_empty() && waiting.bytes + line.0.len() > MOST {
            return false;
        }
        waiting.bytes += line.0.len();
        waiting.lines.push_back((number, line));
        drop(waiting);
        self.changed.notify_one();
        true
    }

    /// Whether a page more finds room.
    pub(super) fn is_half_empty(&self) -> bool {
        self.lock().bytes < MOST / 2
    }

    /// Lines that its reader took so far.
    pub(super) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Nothing more will come.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// Waits for lines and moves about `bytes` of them to `text`, as they are read; false at the end.
    pub(super) fn take(&self, bytes: usize, text: &mut Vec<u8>) -> bool {
        let mut waiting = self.lock();
        while waiting.lines.is_empty() && !waiting.ended {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let before = text.len();
        while text.len() < bytes
            && let Some((number, line)) = waiting.lines.pop_front()
        {
            waiting.bytes -= line.0.len();
            waiting.taken += 1;
            text.extend_from_slice(start(number).as_bytes());
            text.extend_from_slice(&line.0);
        }
        text.len() > before
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::document::{Body, LinesLost};

    #[test]
    fn a_queue_is_bounded_and_lines_are_numbered_anew() {
        let event = Envelope::new(7, Timestamp::UNIX_EPOCH, Body::LinesLost(LinesLost { lines: 1 }));
        let line = Line::new(&event).expect("serializes");
        let queue = Queue::default();
        let held = (0..).take_while(|number| queue.push(*number, line.clone())).count();
        assert!((1..=MOST / line.0.len()).contains(&held), "{held}");
        assert!(!queue.is_half_empty());
        let mut text = Vec::new();
        assert!(queue.take(100, &mut text));
        let text = String::from_utf8(text).expect("UTF-8");
        let first: Envelope = serde_json::from_str(text.lines().next().expect("a line")).expect("parses");
        assert_eq!(first, Envelope { seq: 0, ..event });
        queue.end();
        while queue.take(MOST, &mut Vec::new()) {}
        assert!(queue.push(1, line), "there is room again");
    }
}
