//! Everything the dashboard waits for, on one channel.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use agent::document::Envelope;
use crossterm::event::{Event, KeyEvent, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::source::Stream;

/// Inputs ahead of the loop: few, so that a key is not kept waiting behind a flood of events.
const AHEAD: usize = 64;

/// Something to react to.
pub(super) enum Input {
    Key(KeyEvent),
    Resize,
    Envelope(Box<Envelope>),
    /// The stream ended, well or not.
    Ended(anyhow::Result<()>),
    /// The keyboard cannot be read any more.
    Hangup,
    Signal(i32),
}

/// Starts the threads that wait. They end with the process.
pub(super) fn start(stream: Stream) -> anyhow::Result<Receiver<Input>> {
    let (sender, inputs) = sync_channel(AHEAD);
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let to = sender.clone();
    spawn("signals", move || {
        for signal in signals.forever() {
            if to.send(Input::Signal(signal)).is_err() {
                break;
            }
        }
    })?;
    let to = sender.clone();
    spawn("keys", move || read_keys(&to))?;
    spawn("events", move || forward(stream, &sender))?;
    Ok(inputs)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(body).map(drop)
}

fn read_keys(to: &SyncSender<Input>) {
    loop {
        let input = match crossterm::event::read() {
            // Some terminals tell of releases too.
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Input::Key(key),
            Ok(Event::Resize(..)) => Input::Resize,
            Ok(_) => continue,
            Err(_) => Input::Hangup,
        };
        let last = matches!(input, Input::Hangup);
        if to.send(input).is_err() || last {
            return;
        }
    }
}

fn forward(stream: Stream, to: &SyncSender<Input>) {
    for envelope in &stream.events {
        if to.send(Input::Envelope(envelope)).is_err() {
            return;
        }
    }
    let _ = to.send(Input::Ended(stream.finish()));
}
