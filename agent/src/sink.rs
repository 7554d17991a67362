//! Where the event stream goes. A sink takes whole lines; one `write_all` a line.

mod unix;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::daemon::{Control, Output};
use crate::document::{Envelope, json};

/// An open output.
pub enum Sink {
    /// Standard output. A closed pipe ends the agent, successfully.
    Stdout,
    /// A file and its path, for opening it anew.
    File(File, PathBuf),
    /// A listening socket with its readers.
    Unix(unix::Readers),
}

impl Sink {
    /// Opens an output.
    pub fn open(output: &Output) -> io::Result<Self> {
        match output {
            Output::Stdout => Ok(Sink::Stdout),
            Output::File(path) => Ok(Sink::File(append(path)?, path.clone())),
            Output::Unix(path) => Ok(Sink::Unix(unix::Readers::listen(path)?)),
        }
    }

    /// From now on readers are accepted and sent what they missed.
    pub fn attach(&mut self, control: &Arc<Control>) -> io::Result<()> {
        match self {
            Sink::Unix(readers) => readers.attach(control),
            _ => Ok(()),
        }
    }

    /// Writes one event as one line.
    pub fn write(&mut self, event: &Envelope) -> io::Result<()> {
        let mut line = json::to_vec(event)?;
        line.push(b'\n');
        match self {
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&line)?;
                stdout.flush()
            }
            Sink::File(file, _) => file.write_all(&line),
            Sink::Unix(readers) => {
                readers.send(line.into());
                Ok(())
            }
        }
    }

    /// After SIGHUP: a rotated file is opened anew under its name.
    pub fn reopen(&mut self) -> io::Result<()> {
        if let Sink::File(file, path) = self {
            *file = append(path)?;
        }
        Ok(())
    }
}

/// Metadata of connections is nobody's business but the owner's.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
