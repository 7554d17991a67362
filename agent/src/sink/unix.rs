//! The event stream on a Unix socket: any number of readers, none of which can hold up the agent or another.
//!
//! A reader that comes is told of the host and of every connection first, a page at a time as it takes them, while events go on for
//! all. What it is too slow for is lost to it alone, counted, and told in its stream.

use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::queue::{Line, Queue};
use crate::daemon::Control;
use crate::document::{Audience, Body, Envelope, LinesLost};

/// Readers at a time; each has two threads' worth of stack and, at worst, a queue.
const MOST_READERS: usize = 64;
/// A reader that takes nothing for this long is gone.
const STALLED: Duration = Duration::from_secs(10);
/// How long a page waits for a reader that takes nothing. One that is slow is waited for as long as it is not [`STALLED`]; then it
/// loses lines.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the end waits for readers to take what is queued for them.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause after a connection that could not be accepted.
const RETRY: Duration = Duration::from_millis(50);
/// Bytes written at a time.
const WRITE: usize = 64 << 10;

/// The listening socket and its readers. The socket's file goes with it.
pub(super) struct Readers {
    readers: Arc<Mutex<Vec<Reader>>>,
    /// Until readers are accepted.
    listener: Option<UnixListener>,
    control: Option<Arc<Control>>,
    path: PathBuf,
    /// The number that the next event for everyone should have.
    next: u64,
    /// Lines for those who come late that were handed on but not acknowledged.
    page: Option<Page>,
}

#[derive(Debug, Clone, Copy)]
struct Page {
    lines: usize,
    since: Instant,
    /// When it was last looked at whether readers take anything.
    looked: Instant,
}

struct Reader {
    queue: Arc<Queue>,
    feeder: JoinHandle<()>,
    stage: Stage,
    /// The number of its next line. Each reader's begin at 0.
    next: u64,
    /// Lines that found no room since the last that did.
    lost: u64,
    /// Lines it had taken when that was last looked at; nobody waits for one that takes nothing.
    taken: u64,
    waited_for: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Asked for, and not told of anything yet.
    Waiting,
    /// Being told of all connections, and of events.
    CatchingUp,
    /// Told of events.
    Live,
}

impl Readers {
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        remove_leftover(path)?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self {
            readers: Arc::default(),
            listener: Some(listener),
            control: None,
            path: path.to_owned(),
            next: 0,
            page: None,
        })
    }

    /// Accepts readers, those first that came meanwhile. The threads that serve them have the privileges of the calling thread,
    /// which are few by now.
    pub(super) fn attach(&mut self, control: &Arc<Control>) -> io::Result<()> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        self.control = Some(Arc::clone(control));
        let (readers, control) = (Arc::clone(&self.readers), Arc::clone(control));
        let accept = move || {
            for stream in listener.incoming() {
                let accepted = stream.and_then(|stream| accept(&mut lock(&readers), stream));
                match accepted {
                    Ok(()) => control.resend(),
                    // Out of descriptors, most likely: trying at once would only take the CPU as well.
                    Err(_) => std::thread::sleep(RETRY),
                }
            }
        };
        std::thread::Builder::new().name("readers".into()).spawn(accept).map(drop)
    }

    /// Hands an event to those it is for; returns how many of them had no room for it.
    pub(super) fn send(&mut self, event: &Envelope) -> io::Result<u64> {
        let line = Line::new(event)?;
        let mut readers = lock(&self.readers);
        readers.retain(|reader| !reader.feeder.is_finished());
        let mut lost = 0;
        match event.audience {
            Audience::Everyone => {
                // What the engine had no room for is missing for every reader.
                let dropped = event.seq.saturating_sub(self.next);
                self.next = event.seq + 1;
                for reader in readers.iter_mut().filter(|reader| reader.stage != Stage::Waiting) {
                    reader.next += dropped;
                    lost += reader.push(event, &line)?;
                }
            }
            Audience::Late => {
                if matches!(event.body, Body::AgentStarted(_)) {
                    for reader in readers.iter_mut() {
                        reader.stage = match reader.stage {
                            Stage::Waiting => Stage::CatchingUp,
                            Stage::CatchingUp | Stage::Live => Stage::Live,
                        };
                    }
                }
                for reader in readers.iter_mut().filter(|reader| reader.stage == Stage::CatchingUp) {
                    lost += reader.push(event, &line)?;
                }
                let now = Instant::now();
                self.page.get_or_insert(Page { lines: 0, since: now, looked: now }).lines += 1;
            }
        }
        drop(readers);
        self.pace();
        Ok(lost)
    }

    /// Lets the engine go on with the next page once readers have room for it.
    pub(super) fn pace(&mut self) {
        let (Some(page), Some(control)) = (&mut self.page, &self.control) else {
            return;
        };
        let mut readers = lock(&self.readers);
        if page.looked.elapsed() > PATIENCE {
            page.looked = Instant::now();
            for reader in readers.iter_mut() {
                let taken = reader.queue.taken();
                reader.waited_for = taken > reader.taken;
                reader.taken = taken;
            }
        }
        let behind = |reader: &Reader| {
            reader.stage == Stage::CatchingUp && reader.waited_for && !reader.queue.is_half_empty()
        };
        if !readers.iter().any(behind) || page.since.elapsed() > STALLED {
            control.acknowledge(page.lines);
            self.page = None;
        }
    }
}

fn accept(readers: &mut Vec<Reader>, stream: UnixStream) -> io::Result<()> {
    readers.retain(|reader| !reader.feeder.is_finished());
    if readers.len() >= MOST_READERS {
        return Err(io::Error::other("too many readers"));
    }
    let queue: Arc<Queue> = Arc::default();
    let fed = Arc::clone(&queue);
    let feeder = std::thread::Builder::new().name("reader".into()).spawn(move || feed(stream, &fed))?;
    readers.push(Reader {
        queue,
        feeder,
        stage: Stage::Waiting,
        next: 0,
        lost: 0,
        taken: 0,
        waited_for: true,
    });
    Ok(())
}

impl Reader {
    /// Returns 1 where the line is lost.
    fn push(&mut self, event: &Envelope, line: &Line) -> io::Result<u64> {
        let number = self.next;
        self.next += 1;
        if self.lost > 0 {
            // In place of the last line that was lost, so that numbers still count up by one.
            let body = Body::LinesLost(LinesLost { lines: self.lost });
            let notice = Line::new(&Envelope::new(number - 1, event.timestamp, body))?;
            if self.queue.is_half_empty() && self.queue.push(number - 1, notice) {
                self.lost = 0;
            }
        }
        let lost = self.lost > 0 || !self.queue.push(number, line.clone());
        self.lost += u64::from(lost);
        Ok(u64::from(lost))
    }
}

impl Drop for Readers {
    /// What is in the queues is still written, as long as its reader takes it.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let readers = std::mem::take(&mut *lock(&self.readers));
        readers.iter().for_each(|reader| reader.queue.end());
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline && readers.iter().any(|reader| !reader.feeder.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn lock(readers: &Mutex<Vec<Reader>>) -> MutexGuard<'_, Vec<Reader>> {
    readers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket that nobody listens on is a leftover of an agent that was killed. Anything else stays: it is not ours.
fn remove_leftover(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

fn feed(mut stream: UnixStream, queue: &Queue) {
    let _ = stream.set_write_timeout(Some(STALLED));
    let mut text = Vec::with_capacity(WRITE);
    while queue.take(WRITE, &mut text) {
        if stream.write_all(&text).is_err() {
            return;
        }
        text.clear();
    }
}

#[cfg(test)]
mod tests;
