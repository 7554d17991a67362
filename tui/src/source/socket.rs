//! A running agent's unix socket.

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

use agent::cli::{Exit, Failure};

use super::lines::Lines;
use super::{READ_AHEAD, Stream};

pub(super) fn open(path: &Path) -> anyhow::Result<Stream> {
    let socket = UnixStream::connect(path).map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Exit::NoPermission,
            _ => Exit::Unavailable,
        };
        Failure::new(exit, format!("no agent at {}: {error}", path.display()))
    })?;
    let (sender, events) = sync_channel(READ_AHEAD);
    let name = path.display().to_string();
    let producer = thread::Builder::new().name("socket".into()).spawn(move || {
        for envelope in Lines::new(name, Exit::Unavailable, BufReader::new(socket)) {
            if sender.send(Box::new(envelope?)).is_err() {
                break;
            }
        }
        Ok(())
    })?;
    Ok(Stream::produced(events, producer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    #[test]
    fn reads_what_the_agent_writes_until_it_goes_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let sent = fixture::recording(3);
        let lines = fixture::lines(&sent);
        let agent = thread::spawn(move || {
            listener.accept().expect("a reader").0.write_all(lines.as_bytes()).expect("written");
        });
        let stream = open(&path).expect("connects");
        let read: Vec<_> = stream.events.iter().map(|envelope| *envelope).collect();
        assert_eq!(read, sent);
        stream.finish().expect("ends well");
        agent.join().expect("the agent is done");
    }

    #[test]
    fn a_missing_agent_is_unavailable() {
        let error = open(Path::new("/nonexistent/agent.sock")).expect_err("there is none");
        assert_eq!(error.downcast_ref::<Failure>().map(Failure::exit), Some(Exit::Unavailable));
    }
}
