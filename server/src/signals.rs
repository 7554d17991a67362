//! SIGTERM, SIGINT and SIGHUP as something to await.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two signals that ask for an orderly end.
#[derive(Debug)]
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Takes over both signals from now on.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Completes when either arrives; may be awaited again for the next one.
    pub async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// An orderly end; the signal's name.
    Stop(&'static str),
    /// Reading again what may have changed: SIGHUP.
    Reload,
}

/// The signals of something that runs until told otherwise.
#[derive(Debug)]
pub struct Signals {
    stop: Stop,
    hangup: Signal,
}

impl Signals {
    /// Takes over all three signals from now on.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self { stop: Stop::new()?, hangup: signal(SignalKind::hangup())? })
    }

    /// Completes when one arrives; may be awaited again for the next one.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            name = self.stop.requested() => Request::Stop(name),
            _ = self.hangup.recv() => Request::Reload,
        }
    }

    /// Completes when an end is asked for, whatever else comes before.
    pub async fn stop(&mut self) -> &'static str {
        self.stop.requested().await
    }
}
