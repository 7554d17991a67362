//! A recorded event stream, at the pace of its timestamps.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use agent::cli::{Exit, Failure};
use jiff::Timestamp;

use super::lines::Lines;
use super::{READ_AHEAD, Stream};

pub(super) fn open(path: &Path, speed: f64) -> anyhow::Result<Stream> {
    let file = File::open(path)
        .map_err(|error| Failure::new(Exit::Config, format!("cannot read {}: {error}", path.display())))?;
    let (sender, events) = sync_channel(READ_AHEAD);
    let name = path.display().to_string();
    let producer = thread::Builder::new().name("replay".into()).spawn(move || {
        let mut before = None;
        for envelope in Lines::new(name, Exit::Config, BufReader::new(file)) {
            let envelope = envelope?;
            thread::sleep(pause(before.replace(envelope.timestamp), envelope.timestamp, speed));
            if sender.send(Box::new(envelope)).is_err() {
                break;
            }
        }
        Ok(())
    })?;
    Ok(Stream::produced(events, producer))
}

/// How long after its predecessor an event is due. A clock that was set back while recording makes no pause.
fn pause(before: Option<Timestamp>, now: Timestamp, speed: f64) -> Duration {
    let recorded = before.map_or(0.0, |before| now.duration_since(before).as_secs_f64());
    if speed == 0.0 {
        Duration::ZERO
    } else {
        Duration::try_from_secs_f64(recorded / speed).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn keeps_the_recorded_pace_times_the_factor() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        assert_eq!(pause(None, at(5), 1.0), Duration::ZERO);
        assert_eq!(pause(Some(at(5)), at(7), 1.0), Duration::from_secs(2));
        assert_eq!(pause(Some(at(5)), at(7), 4.0), Duration::from_millis(500));
        assert_eq!(pause(Some(at(5)), at(7), 0.0), Duration::ZERO);
        assert_eq!(pause(Some(at(7)), at(5), 1.0), Duration::ZERO, "the clock was set back");
    }

    #[test]
    fn the_end_says_what_was_wrong_with_the_recording() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("recording.jsonl");
        std::fs::write(&path, fixture::lines(&fixture::recording(2)) + "nonsense\n").expect("written");
        let stream = open(&path, 0.0).expect("opens");
        assert_eq!(stream.events.iter().count(), fixture::recording(2).len());
        let error = stream.finish().expect_err("the last line is bad");
        assert_eq!(error.downcast_ref::<Failure>().map(Failure::exit), Some(Exit::Config));
    }
}
