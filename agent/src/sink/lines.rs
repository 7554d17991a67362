//! Whole lines into a file or standard output, whatever becomes of the disk: what cannot be written is lost and counted, and the
//! agent goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::cli::say;
use crate::document::{Body, Envelope, LinesLost, json};

/// Pause after a failure; doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An output that takes lines.
pub(super) struct Lines {
    file: File,
    /// The file's name; none for standard output, which nobody else can open.
    path: Option<PathBuf>,
    /// What is missing of a line that was written in part. It comes before everything else: no line is glued to half of another.
    rest: Vec<u8>,
    /// Lines lost since the last one that was written.
    lost: u64,
    retry: Option<Retry>,
    /// SIGHUP came, and the file is not opened anew yet.
    reopen: Option<Retry>,
}

/// When to try again.
#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Retry {
    fn after(failed: Option<Self>) -> Self {
        let pause = failed.map_or(FIRST_PAUSE, |failed| (failed.pause * 2).min(LONGEST_PAUSE));
        Self { at: Instant::now() + pause, pause }
    }
}

impl Lines {
    pub(super) fn stdout() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { file, path: None, rest: Vec::new(), lost: 0, retry: None, reopen: None })
    }

    pub(super) fn file(path: &Path) -> io::Result<Self> {
        let (file, rest) = append(path)?;
        Ok(Self { file, path: Some(path.to_owned()), rest, lost: 0, retry: None, reopen: None })
    }

    /// Writes one event; returns how many lines were lost by this. An error is a pipe whose reader went away, and the end.
    pub(super) fn write(&mut self, event: &Envelope) -> io::Result<u64> {
        if self.reopen.is_some_and(|retry| retry.at <= Instant::now()) {
            self.open_anew();
        }
        // The last word is worth an attempt of its own.
        let last = matches!(event.body, Body::AgentStopped(_));
        if !last && self.retry.is_some_and(|retry| Instant::now() < retry.at) {
            self.lost += 1;
            return Ok(1);
        }
        match self.try_write(event) {
            Ok(()) => {
                if self.retry.take().is_some() {
                    say(&format!("output {}: written again", self.name()));
                }
                Ok(0)
            }
            Err((error, _)) if self.path.is_none() && error.kind() == io::ErrorKind::BrokenPipe => Err(error),
            Err((error, begun)) => {
                if self.retry.is_none() {
                    let name = self.name();
                    say(&format!(
                        "output {name}: {error}: lines are lost, and counted, until it can be written"
                    ));
                }
                self.retry = Some(Retry::after(self.retry));
                // What is begun will be finished.
                let lost = u64::from(!begun);
                self.lost += lost;
                Ok(lost)
            }
        }
    }

    /// After SIGHUP: opens the file under its name. Until that succeeds lines go where they went before.
    pub(super) fn reopen(&mut self) {
        if self.path.is_some() {
            self.reopen = None;
            self.open_anew();
        }
    }

    fn open_anew(&mut self) {
        let Some(path) = &self.path else { return };
        match append(path) {
            Ok((file, rest)) => {
                // Half a line stays in the old file; it cannot be finished here.
                (self.file, self.rest) = (file, rest);
                (self.reopen, self.retry) = (None, None);
            }
            Err(error) => {
                if self.reopen.is_none() {
                    say(&format!(
                        "output {}: cannot be opened anew: {error}; still written as it was",
                        self.name()
                    ));
                }
                self.reopen = Some(Retry::after(self.reopen));
            }
        }
    }

    /// What goes wrong comes with whether a part of the event's own line is written.
    fn try_write(&mut self, event: &Envelope) -> Result<(), (io::Error, bool)> {
        let rest = std::mem::take(&mut self.rest);
        if let Err((error, begun)) = self.put(&rest) {
            if !begun {
                self.rest = rest;
            }
            return Err((error, false));
        }
        if self.lost > 0 {
            // In place of the last line that was lost, so that numbers still count up by one.
            let body = Body::LinesLost(LinesLost { lines: self.lost });
            let notice = Envelope::new(event.seq.saturating_sub(1), event.timestamp, body);
            let said = self.put_line(&notice);
            if matches!(said, Ok(()) | Err((_, true))) {
                self.lost = 0;
            }
            said.map_err(|(error, _)| (error, false))?;
        }
        self.put_line(event)
    }

    fn put_line(&mut self, event: &Envelope) -> Result<(), (io::Error, bool)> {
        let mut line = json::to_vec(event).map_err(|error| (error.into(), false))?;
        line.push(b'\n');
        self.put(&line)
    }

    /// Writes all of `bytes`. Where a part of them was written, what is missing is kept, and the error says so.
    fn put(&mut self, bytes: &[u8]) -> Result<(), (io::Error, bool)> {
        let mut written = 0;
        while written < bytes.len() {
            let error = match self.file.write(&bytes[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(more) => {
                    written += more;
                    continue;
                }
                Err(error) => error,
            };
            let waited = match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                // Somebody else made a shared descriptor one that does not wait.
                io::ErrorKind::WouldBlock => poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], None)
                    .map(drop)
                    .map_err(io::Error::from),
                _ => Err(error),
            };
            if let Err(error) = waited {
                if written > 0 {
                    self.rest = bytes[written..].to_vec();
                }
                return Err((error, written > 0));
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "stdout".to_owned(), |path| format!("file:{}", path.display()))
    }
}

/// Opens a file for appending, and says what is to be written first: an agent that was killed, or a disk that was full, may have left
/// half a line. Metadata of connections is nobody's business but the owner's.
fn append(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let length =
        file.metadata().ok().filter(|metadata| metadata.is_file()).map_or(0, |metadata| metadata.len());
    let mut last = [b'\n'];
    if let (Some(at), Ok(reader)) = (length.checked_sub(1), File::open(path)) {
        // What cannot be read is left as it is.
        let _ = reader.read_at(&mut last, at);
    }
    Ok((file, if last == [b'\n'] { Vec::new() } else { vec![b'\n'] }))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::document::{EventWriter, Stopped};

    fn event(writer: &mut EventWriter) -> Envelope {
        let reason = "of some length, so that a line can be cut".repeat(8);
        // Not the last word, which is tried whenever it comes.
        let mut event = writer.envelope(Timestamp::UNIX_EPOCH, Body::LinesLost(LinesLost { lines: 0 }));
        event.severity_text = reason;
        event
    }

    /// Writes until `done`, at most for a few seconds; returns how many lines were lost.
    fn write_until(lines: &mut Lines, writer: &mut EventWriter, mut done: impl FnMut(u64) -> bool) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut lost = 0;
        while !done(lost) {
            assert!(Instant::now() < deadline, "{lost} lines lost");
            lost += lines.write(&event(writer)).expect("goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
        lost
    }

    #[test]
    fn a_device_that_is_full_loses_lines_and_counts_them() {
        let mut lines = Lines::file(Path::new("/dev/full")).expect("opens");
        let mut writer = EventWriter::default();
        let lost = write_until(&mut lines, &mut writer, |lost| lost == 10);
        assert_eq!((lost, lines.lost), (10, 10));
    }

    #[test]
    fn half_a_line_is_finished_and_losses_are_told_in_their_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut lines = Lines::file(&folder.path().join("x")).expect("opens");
        let mut writer = EventWriter::default();
        // A file that takes some bytes of a line and no more cannot be had without a quota: what is left of the line stands for it.
        let first = event(&mut writer);
        let mut whole = json::to_vec(&first).expect("serializes");
        whole.push(b'\n');
        let half = whole.len() / 2;
        lines.file.write_all(&whole[..half]).expect("written");
        lines.rest = whole[half..].to_vec();
        lines.retry = Some(Retry { at: Instant::now() + Duration::from_millis(20), pause: FIRST_PAUSE });
        let lost: u64 = (0..5).map(|_| lines.write(&event(&mut writer)).expect("goes on")).sum();
        assert_eq!(lost, 5, "it is not tried at each line");
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(lines.write(&event(&mut writer)).expect("written"), 0);
        let text = std::fs::read_to_string(folder.path().join("x")).expect("read");
        let events: Vec<Envelope> =
            text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect();
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [0, 5, 6], "what was lost is 1 to 5");
        assert_eq!(events[1].body, Body::LinesLost(LinesLost { lines: 5 }));
    }

    #[test]
    fn a_line_that_an_earlier_agent_left_half_is_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        std::fs::write(&path, "whole\nhal").expect("written");
        let mut writer = EventWriter::default();
        let mut lines = Lines::file(&path).expect("opens");
        lines.write(&event(&mut writer)).expect("written");
        drop(lines);
        Lines::file(&path).expect("opens").write(&event(&mut writer)).expect("written");
        let text = std::fs::read_to_string(&path).expect("read");
        let starts: Vec<&str> = text.lines().map(|line| &line[..3]).collect();
        assert_eq!(starts, ["who", "hal", "{\"s", "{\"s"]);
    }

    #[test]
    fn a_file_that_cannot_be_opened_anew_is_still_written_and_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (below, path) = (folder.path().join("logs"), folder.path().join("logs/x"));
        std::fs::create_dir(&below).expect("made");
        let mut writer = EventWriter::default();
        let mut lines = Lines::file(&path).expect("opens");
        let moved = folder.path().join("moved");
        std::fs::rename(&below, &moved).expect("moved");
        lines.reopen();
        assert_eq!(lines.write(&event(&mut writer)).expect("written"), 0);
        assert_eq!(std::fs::read_to_string(moved.join("x")).expect("read").lines().count(), 1);
        std::fs::create_dir(&below).expect("made");
        assert_eq!(write_until(&mut lines, &mut writer, |_| path.exists()), 0);
        let stopped = Body::AgentStopped(Stopped { reason: "signal".into() });
        lines.write(&writer.envelope(Timestamp::UNIX_EPOCH, stopped)).expect("written");
        assert!(std::fs::read_to_string(&path).expect("read").ends_with("\"signal\"}}\n"));
    }
}
