//! The event stream on a Unix socket: any number of readers, none of which can hold up the agent or another.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::daemon::Control;

/// Lines a reader may be behind before it is dropped: the first burst holds every connection of the host.
const QUEUE: usize = 65_536;
/// A reader that takes nothing for this long is gone.
const STALLED: Duration = Duration::from_secs(10);

type Line = Arc<[u8]>;

/// The listening socket and its readers. The socket's file goes with it.
pub struct Readers {
    queues: Arc<Mutex<Vec<SyncSender<Line>>>>,
    path: PathBuf,
}

impl Readers {
    pub(super) fn listen(path: &Path, control: Arc<Control>) -> io::Result<Self> {
        // A socket that nobody listens on is a leftover of an agent that was killed.
        if path.exists() && UnixStream::connect(path).is_err() {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        let queues: Arc<Mutex<Vec<SyncSender<Line>>>> = Arc::default();
        let accepted = Arc::clone(&queues);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let (sender, lines) = sync_channel(QUEUE);
                accepted.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
                std::thread::spawn(move || feed(stream, &lines));
                control.resend();
            }
        });
        Ok(Self { queues, path: path.to_owned() })
    }

    /// Hands a line to every reader; one that is gone or too far behind is dropped.
    pub(super) fn send(&self, line: Line) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).retain(|queue| {
            !matches!(
                queue.try_send(Arc::clone(&line)),
                Err(TrySendError::Disconnected(_) | TrySendError::Full(_))
            )
        });
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn feed(mut stream: UnixStream, lines: &Receiver<Line>) {
    let _ = stream.set_write_timeout(Some(STALLED));
    while let Ok(line) = lines.recv() {
        if stream.write_all(&line).is_err() {
            return;
        }
    }
}
