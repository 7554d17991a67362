//! Reading what an iterator writes: all of a pass, or a page at a time.

use std::fs::File;
use std::io::{self, Read as _};

use super::read::Observation;
use super::record::SweepRecord;

/// Takes a record off the front of bytes; `None` where it is not whole.
pub(super) type Split<T> = fn(&[u8]) -> Option<(T, &[u8])>;

/// A pass that is read a page at a time. It holds one namespace open for as long as its sockets take to be read, which is the
/// exception to what is said in `namespaces`.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) current: Records,
    /// Those to visit after it.
    pub(super) namespaces: Vec<u32>,
}

/// The records of one pass.
#[derive(Debug)]
pub(super) struct Records {
    file: File,
    buffer: Vec<u8>,
    /// Bytes of a record that is not whole yet.
    kept: usize,
}

impl Records {
    pub(super) fn new(file: File) -> Self {
        // The kernel hands out at most 32 KiB a read and never splits a record across two.
        Self { file, buffer: vec![0u8; 32 << 10], kept: 0 }
    }

    /// Visits records until there are `number`, and what was read with them; whether there may be others behind them. `None`
    /// stands for what is between two reads, and at the end: no record is at hand then.
    pub(super) fn page<T>(
        &mut self,
        number: usize,
        split: Split<T>,
        step: &mut dyn FnMut(Option<&T>),
    ) -> io::Result<bool> {
        let mut visited = 0;
        while visited < number {
            let read = match self.file.read(&mut self.buffer[self.kept..]) {
                Ok(0) => {
                    step(None);
                    return Ok(false);
                }
                Ok(read) => read,
                // A million sockets went by without output; the iterator goes on where it stopped.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    0
                }
                Err(error) => return Err(error),
            };
            let filled = self.kept + read;
            let mut rest = &self.buffer[..filled];
            while let Some((record, after)) = split(rest) {
                step(Some(&record));
                visited += 1;
                rest = after;
            }
            self.kept = rest.len();
            self.buffer.copy_within(filled - self.kept..filled, 0);
            step(None);
        }
        Ok(true)
    }
}

/// Reads all records of one pass.
pub(super) fn records<T>(file: File, split: Split<T>, step: &mut dyn FnMut(Option<&T>)) -> io::Result<()> {
    Records::new(file).page(usize::MAX, split, step).map(drop)
}

impl SweepRecord {
    pub(super) fn observation(&self) -> Observation<'_> {
        match self {
            SweepRecord::Tracked(socket) => Observation::Socket(socket),
            SweepRecord::Candidate(candidate) => Observation::Candidate(candidate),
        }
    }
}
