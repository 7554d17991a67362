//! A server that says on its first line where it listens.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use crate::process::{Running, Stop};

const READY: Duration = Duration::from_secs(20);

/// Such a server, ready; ended when dropped.
pub(super) struct Listening {
    pub(super) running: Running,
    /// `ws://ADDRESS:PORT`.
    pub(super) url: String,
}

impl Listening {
    /// Starts `command` and waits until it listens. What it prints and logs goes to `folder`, into files named `name`.
    pub(super) fn start(
        stop: &Stop,
        command: &mut Command,
        name: &str,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let file = name.replace([' ', ','], "-");
        let (output, log) = (folder.join(format!("{file}.txt")), folder.join(format!("{file}.log")));
        command.stdout(File::create(&output)?).stderr(File::create(&log)?);
        let mut running = Running::start(command)?;
        let url = stop.wait_for(name, READY, || {
            if let Some(status) = running.child.try_wait()? {
                bail!("{name} ended with {status}; see {}", log.display());
            }
            let text = std::fs::read_to_string(&output)?;
            let line = text.lines().find_map(|line| line.strip_prefix("listening on "));
            Ok(line.filter(|_| text.ends_with('\n')).map(str::to_owned))
        })?;
        Ok(Self { running, url })
    }

    /// `ADDRESS:PORT`.
    pub(super) fn address(&self) -> &str {
        self.url.split_once("://").map_or(&self.url, |(_, address)| address)
    }
}
