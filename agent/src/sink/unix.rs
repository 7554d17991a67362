//! The event stream on a Unix socket: any number of readers, none of which can hold up the agent or another.

use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::daemon::Control;
use crate::document::{Envelope, json};

/// Lines a reader may be behind before it is dropped: the first burst holds every connection of the host.
const QUEUE: usize = 65_536;
/// A reader that takes nothing for this long is gone.
const STALLED: Duration = Duration::from_secs(10);

/// How long the end waits for readers to take what is queued for them.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause after a connection that could not be accepted.
const RETRY: Duration = Duration::from_millis(50);

type Line = Arc<[u8]>;

/// The listening socket and its readers. The socket's file goes with it.
pub(super) struct Readers {
    readers: Arc<Mutex<Vec<Reader>>>,
    /// Until readers are accepted.
    listener: Option<UnixListener>,
    path: PathBuf,
}

struct Reader {
    lines: SyncSender<Line>,
    feeder: JoinHandle<()>,
}

impl Readers {
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        remove_leftover(path)?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self { readers: Arc::default(), listener: Some(listener), path: path.to_owned() })
    }

    /// Accepts readers, those first that came meanwhile. The threads that serve them have the privileges of the calling thread,
    /// which are few by now.
    pub(super) fn attach(&mut self, control: &Arc<Control>) -> io::Result<()> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        let (accepted, control) = (Arc::clone(&self.readers), Arc::clone(control));
        let accept = move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    // Out of descriptors, most likely: trying at once would only take the CPU as well.
                    std::thread::sleep(RETRY);
                    continue;
                };
                let (lines, queue) = sync_channel(QUEUE);
                let feeder = std::thread::Builder::new().name("reader".into());
                let Ok(feeder) = feeder.spawn(move || feed(stream, &queue)) else {
                    continue;
                };
                accepted.lock().unwrap_or_else(PoisonError::into_inner).push(Reader { lines, feeder });
                control.resend();
            }
        };
        std::thread::Builder::new().name("readers".into()).spawn(accept).map(drop)
    }

    /// Hands an event to every reader; one that is gone or too far behind is dropped.
    pub(super) fn send(&self, event: &Envelope) -> io::Result<u64> {
        let mut line = json::to_vec(event)?;
        line.push(b'\n');
        self.send_line(line.into());
        Ok(0)
    }

    fn send_line(&self, line: Line) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| reader.lines.try_send(Arc::clone(&line)).is_ok());
    }
}

impl Drop for Readers {
    /// What is in the queues is still written, as long as its reader takes it.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let readers = std::mem::take(&mut *self.readers.lock().unwrap_or_else(PoisonError::into_inner));
        let deadline = Instant::now() + FAREWELL;
        let feeders: Vec<JoinHandle<()>> = readers.into_iter().map(|reader| reader.feeder).collect();
        while Instant::now() < deadline && feeders.iter().any(|feeder| !feeder.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
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

fn feed(mut stream: UnixStream, lines: &Receiver<Line>) {
    let _ = stream.set_write_timeout(Some(STALLED));
    while let Ok(line) = lines.recv() {
        if stream.write_all(&line).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn only_a_dead_socket_is_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").expect("written");
        assert!(Readers::listen(&file).is_err(), "a file is in the way");
        assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");

        let socket = folder.path().join("socket");
        drop(UnixListener::bind(&socket).expect("bound"));
        let readers = Readers::listen(&socket).expect("a leftover is replaced");
        assert!(Readers::listen(&socket).is_err(), "a live one is not");
        drop(readers);
        assert!(!socket.exists());
    }

    #[test]
    fn the_last_lines_reach_a_reader_that_takes_them() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("socket");
        let mut readers = Readers::listen(&path).expect("listens");
        readers.attach(&Arc::default()).expect("accepts");
        let mut reader = UnixStream::connect(&path).expect("connects");
        let deadline = Instant::now() + Duration::from_secs(5);
        while readers.readers.lock().expect("lock").is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        for _ in 0..1_000 {
            readers.send_line(b"line\n".as_slice().into());
        }
        let taken = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        drop(readers);
        assert_eq!(taken.join().expect("thread").expect("read").lines().count(), 1_000);
    }
}
