//! The dashboard on a terminal: threads that wait feed one channel, one loop updates and draws.
//!
//! Nothing polls: with no event, no key and no signal, every thread sleeps.

mod inputs;

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::app::{App, Effect, Event};
use crate::render::{self, Theme};
use crate::source::Stream;
use crate::terminal::Screen;

use inputs::Input;

/// Least time between two frames that only events call for. Keys are answered at once.
const FRAME: Duration = Duration::from_millis(100);

/// Why the loop ended.
enum End {
    Quit,
    Signal(i32),
}

/// Shows the stream until the user leaves or a signal comes.
pub(crate) fn run(stream: Stream) -> anyhow::Result<()> {
    let theme = Theme::from_environment();
    // Signals are caught before the terminal is taken: no moment is left in which one would not give it back.
    let inputs = inputs::start(stream)?;
    let mut screen = Screen::open()?;
    let mut failure = None;
    let end = show(&mut screen, &inputs, theme, &mut failure);
    drop(screen);
    match end? {
        // The stream's own error ends the process as it would have without a dashboard.
        End::Quit => failure.map_or(Ok(()), Err),
        // The parent learns that it was the signal, which it asked for.
        End::Signal(signal) => Ok(signal_hook::low_level::emulate_default_handler(signal)?),
    }
}

fn show(
    screen: &mut Screen,
    inputs: &Receiver<Input>,
    theme: Theme,
    failure: &mut Option<anyhow::Error>,
) -> anyhow::Result<End> {
    let mut app = App::default();
    let mut due = Some(Instant::now());
    loop {
        let input = match due {
            None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => inputs.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        let input = match input {
            Ok(input) => input,
            Err(RecvTimeoutError::Timeout) => {
                screen.terminal.draw(|frame| render::draw(frame, &mut app, theme))?;
                due = None;
                continue;
            }
            // The keyboard went away, and with it whoever looked.
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Quit),
        };
        let (event, delay) = match input {
            Input::Signal(signal) => return Ok(End::Signal(signal)),
            Input::Hangup => return Ok(End::Quit),
            Input::Key(key) => (Event::Key(key), Duration::ZERO),
            Input::Resize => (Event::Resize, Duration::ZERO),
            Input::Envelope(envelope) => (Event::Envelope(envelope), FRAME),
            Input::Ended(outcome) => {
                *failure = outcome.err();
                (Event::Ended(failure.as_ref().map(|error| format!("{error:#}"))), Duration::ZERO)
            }
        };
        match app.update(event) {
            Effect::Quit => return Ok(End::Quit),
            Effect::Redraw => due = Some(sooner(due, Instant::now() + delay)),
            Effect::None => {}
        }
        // A stream that never pauses must not keep the screen from being drawn.
        if due.is_some_and(|due| due <= Instant::now()) {
            screen.terminal.draw(|frame| render::draw(frame, &mut app, theme))?;
            due = None;
        }
    }
}

fn sooner(due: Option<Instant>, at: Instant) -> Instant {
    due.map_or(at, |due| due.min(at))
}
