//! Printing once instead of drawing: gather for a while, then write one thing.

use std::io::Write;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Instant;

use agent::cli::{Exit, Failure};
use anyhow::Context;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use crate::app::{App, Event};
use crate::options::{Options, Output};
use crate::render::{self, Theme};
use crate::source::{self, Stream};
use crate::svg;
use crate::view::View;

/// Size of the picture: a common terminal, and wide enough for every column.
const PICTURE: (u16, u16) = (120, 36);

/// Gathers what the options name and writes it in the form of `output`.
pub(crate) fn run(options: &Options, output: Output) -> anyhow::Result<()> {
    let stream = source::open(options, 0.0)?;
    // A recording is read to its end: how long that takes says nothing about the data.
    let deadline = options.replay.is_none().then(|| Instant::now() + options.settle);
    let app = gather(stream, deadline)?;
    if app.view().tick().is_none() {
        let message = match deadline {
            Some(_) => "no tick arrived in time: a longer --settle may help",
            None => "the recording holds no tick",
        };
        return Err(Failure::new(Exit::Unavailable, message).into());
    }
    match output {
        Output::Table => print(&agent::report::table(&app.view().snapshot()).to_string()),
        Output::Json => print(&(json(app.view())? + "\n")),
        Output::Svg(path) => {
            std::fs::write(&path, picture(app)?).with_context(|| format!("cannot write {}", path.display()))
        }
    }
}

fn gather(stream: Stream, deadline: Option<Instant>) -> anyhow::Result<App> {
    let mut app = App::default();
    loop {
        let next = match deadline {
            None => stream.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => stream.events.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        match next {
            Ok(envelope) => app.update(Event::Envelope(envelope)),
            Err(RecvTimeoutError::Timeout) => return Ok(app),
            Err(RecvTimeoutError::Disconnected) => return stream.finish().map(|()| app),
        };
        // A stream that is never silent would otherwise hold the timeout off for ever.
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(app);
        }
    }
}

fn json(view: &View) -> anyhow::Result<String> {
    let mut text = Vec::new();
    agent::document::json::write_pretty(&mut text, &view.snapshot())?;
    Ok(String::from_utf8(text)?)
}

fn picture(mut app: App) -> anyhow::Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(PICTURE.0, PICTURE.1))?;
    let frame = terminal.draw(|frame| render::draw(frame, &mut app, Theme::COLOR))?;
    Ok(svg::render(frame.buffer))
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use std::sync::mpsc;
    use std::time::Duration;

    fn gathered() -> App {
        let (sender, events) = mpsc::channel();
        for envelope in fixture::recording(31) {
            sender.send(Box::new(envelope)).expect("sent");
        }
        drop(sender);
        gather(Stream::new(events), None).expect("gathers")
    }

    #[test]
    fn the_document_is_what_the_stream_said() {
        let text = json(gathered().view()).expect("serializes");
        let document: agent::document::Snapshot = serde_json::from_str(&text).expect("parses");
        assert_eq!(document.connections.len(), fixture::CONNECTIONS as usize);
    }

    #[test]
    fn the_picture_holds_the_headline_and_nothing_unescaped() {
        let svg = picture(gathered()).expect("drawn");
        assert!(svg.contains("descriptors first: 18,432 of 20,000, 1,568 connections left"), "{svg}");
        for piece in svg.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;"].iter().any(|entity| piece.starts_with(entity)), "{piece}");
        }
        for tag in svg.split('<').skip(1) {
            assert!(
                ["svg", "/svg", "rect", "text", "/text"].iter().any(|name| tag.starts_with(name)),
                "{tag}"
            );
        }
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn a_live_stream_is_left_at_the_deadline() {
        let (sender, events) = mpsc::channel();
        for envelope in fixture::recording(1) {
            sender.send(Box::new(envelope)).expect("sent");
        }
        let before = Instant::now();
        let app = gather(Stream::new(events), Some(before + Duration::from_millis(50))).expect("gathers");
        assert!(before.elapsed() >= Duration::from_millis(50));
        assert!(app.view().tick().is_some());
        drop(sender);
    }
}
