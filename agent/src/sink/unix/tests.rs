use std::io::{BufRead as _, BufReader};

use jiff::Timestamp;

use super::*;
use crate::document::{EventWriter, Stopped};

fn last_word(writer: &mut EventWriter) -> Envelope {
    writer.envelope(Timestamp::UNIX_EPOCH, Body::AgentStopped(Stopped { reason: "x".repeat(1_000) }))
}

/// Readers of a socket, and one that has been told that the agent started.
fn joined(folder: &Path) -> (Readers, UnixStream) {
    let path = folder.join("socket");
    let mut readers = Readers::listen(&path).expect("listens");
    let control: Arc<Control> = Arc::default();
    readers.attach(&control).expect("accepts");
    let reader = UnixStream::connect(&path).expect("connects");
    let deadline = Instant::now() + Duration::from_secs(20);
    while lock(&readers.readers).is_empty() {
        assert!(Instant::now() < deadline, "not accepted");
        std::thread::sleep(Duration::from_millis(1));
    }
    let started = Body::AgentStarted(crate::document::Started {
        host: Default::default(),
        interval_seconds: 1.0,
        ports: Vec::new(),
        sample_connections: None,
        max_connection_events: None,
    });
    readers.send(&Envelope::late(Timestamp::UNIX_EPOCH, started)).expect("sent");
    (readers, reader)
}

fn events(reader: UnixStream) -> Vec<Envelope> {
    let parse = |line: io::Result<String>| serde_json::from_str(&line.expect("read")).expect("parses");
    BufReader::new(reader).lines().map(parse).collect()
}

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
    let (mut readers, reader) = joined(folder.path());
    let mut writer = EventWriter::default();
    // Numbers that were given out before it came are none of its own.
    (0..7).for_each(|_| drop(last_word(&mut writer)));
    readers.next = 7;
    for _ in 0..1_000 {
        readers.send(&last_word(&mut writer)).expect("sent");
    }
    let taken = std::thread::spawn(move || events(reader));
    drop(readers);
    let taken = taken.join().expect("thread");
    assert_eq!(taken[0].event, "agent_started");
    assert_eq!(taken.iter().map(|event| event.seq).collect::<Vec<_>>(), (0..1_001).collect::<Vec<_>>());
}

#[test]
fn what_a_slow_reader_misses_is_counted_and_told() {
    let folder = tempfile::tempdir().expect("folder");
    let (mut readers, reader) = joined(folder.path());
    let mut writer = EventWriter::default();
    let mut lost = 0;
    while lost < 100 {
        lost += readers.send(&last_word(&mut writer)).expect("sent");
    }
    assert_eq!(lock(&readers.readers).len(), 1, "it is not dropped for that");
    let taken = std::thread::spawn(move || events(reader));
    let deadline = Instant::now() + Duration::from_secs(20);
    while lock(&readers.readers).iter().any(|reader| reader.lost > 0) {
        assert!(Instant::now() < deadline, "it was never told");
        lost += readers.send(&last_word(&mut writer)).expect("sent");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(readers);
    let (mut next, mut holes, mut told) = (0, 0, 0);
    for event in taken.join().expect("thread") {
        holes += event.seq - next;
        next = event.seq + 1;
        if let Body::LinesLost(missing) = event.body {
            (holes, told) = (holes + 1, told + missing.lines);
        }
    }
    assert_eq!((holes, told), (lost, lost));
}
