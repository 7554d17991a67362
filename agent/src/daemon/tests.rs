//! The engine's thread, an output and its readers on a kernel that is made up.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use super::engine::tests::{Fixed, Kernel, socket};
use super::*;
use crate::document::Host as HostDocument;
use crate::sink::Sink;

/// More than the queues between the engine and a reader hold.
const CONNECTIONS: u64 = 100_000;

/// What a reader found until it knew of that many connections.
#[derive(Default)]
struct Found {
    ids: BTreeSet<String>,
    ticks: usize,
    lost: u64,
}

/// Reads from the beginning, which must be `agent_started`, until `done`; numbers must count up by one.
fn read(path: &Path, mut done: impl FnMut(&Found) -> bool) -> Found {
    let reader = UnixStream::connect(path).expect("joins");
    reader.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut found = Found::default();
    for (number, line) in BufReader::new(reader).lines().enumerate() {
        let event: Envelope = serde_json::from_str(&line.expect("a line in time")).expect("parses");
        found.lost += u64::from(event.seq != number as u64);
        match event.body {
            Body::AgentStarted(_) => assert_eq!(number, 0),
            Body::ConnectionUpdated(connection) => drop(found.ids.insert(connection.id)),
            Body::Tick(_) => found.ticks += 1,
            Body::LinesLost(missing) => found.lost += missing.lines,
            _ => {}
        }
        // One that lost lines never gets there.
        if done(&found) || found.lost > 0 {
            return found;
        }
    }
    panic!("the stream ended with {} connections", found.ids.len());
}

/// Stops the engine however the test ends.
struct Stop<'a>(&'a Control);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[test]
fn readers_that_come_late_learn_of_every_connection_and_hold_up_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("agent.sock");
    let settings = Settings { output: Output::Unix(path.clone()), ..Settings::default() };
    let mut kernel = Kernel::default();
    kernel.sockets = (1..=CONNECTIONS).map(socket).collect();
    let mut engine = Engine::new(kernel, Fixed, HostDocument::default(), Vec::new(), &settings);
    let (sender, events) = sync_channel(QUEUE);
    let control: Arc<Control> = Arc::default();
    let mut sink = Sink::open(&settings.output).expect("opens");
    sink.attach(&control).expect("accepts");
    std::thread::scope(|scope| {
        let interval = Duration::from_millis(50);
        let seen = &control;
        let stop = Stop(seen);
        scope.spawn(move || {
            drive(&mut engine, &mut Outbox::new(sender, Limit::default()), seen, interval, None)
        });
        let written = scope.spawn(move || {
            loop {
                sink.pace();
                match events.recv_timeout(Duration::from_millis(20)) {
                    Ok(event) => sink.write(&event).expect("goes on"),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                    Err(_) => return,
                }
            }
        });
        let stalled = UnixStream::connect(&path).expect("joins");
        let live =
            scope.spawn(|| read(&path, |found| found.ids.len() as u64 == CONNECTIONS && found.ticks > 3));
        let begun = Instant::now();
        let late = read(&path, |found| found.ids.len() as u64 == CONNECTIONS);
        let took = begun.elapsed();
        let live = live.join().expect("read");
        assert_eq!((late.lost, live.lost), (0, 0));
        assert!(late.ticks > 0, "ticks go on meanwhile, in {took:?}");
        drop(stalled);
        drop(stop);
        written.join().expect("written");
    });
}
