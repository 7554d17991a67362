//! Whole frames at the sizes people use.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::*;
use crate::app::Event;
use crate::fixture;

fn app() -> App {
    let mut app = App::default();
    for envelope in fixture::recording(31) {
        app.update(Event::Envelope(Box::new(envelope)));
    }
    app
}

/// Presses keys, drawing after each as the dashboard does: `⏎` is Enter, `⇟` page down.
fn frame(app: &mut App, width: u16, height: u16, keys: &str) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    let mut show = |app: &mut App| {
        terminal.draw(|frame| draw(frame, app, Theme::COLOR)).expect("drawn");
    };
    show(app);
    for key in keys.chars() {
        let code = match key {
            '⏎' => KeyCode::Enter,
            '⇟' => KeyCode::PageDown,
            letter => KeyCode::Char(letter),
        };
        app.update(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        show(app);
    }
    terminal.backend().clone()
}

/// Each screen of a host whose every name is chosen to harm: no cell holds what a terminal obeys.
#[test]
fn hostile_names_are_drawn_and_not_obeyed() {
    const HOSTILE: &str = "a\x1b[2J\u{9b}31m\x7f\n\u{202e}txt\u{2066}\u{200f}\u{2028}\u{feff}";
    let hostile = || HOSTILE.to_owned();
    let mut recording = fixture::Recording::new();
    let mut connection = fixture::connection(1);
    connection.upgrade = Some(agent::document::Upgrade {
        path: Some(hostile()),
        user_agent: Some(hostile()),
        ..connection.upgrade.unwrap_or_default()
    });
    recording.opened(connection);
    let mut tick = fixture::tick(0);
    for ceiling in &mut tick.ceilings {
        (ceiling.scope, ceiling.basis) = (hostile(), hostile());
    }
    tick.processes.iter_mut().for_each(|process| process.comm = hostile());
    tick.degraded.push(agent::document::Degraded { probe: hostile(), reason: hostile() });
    recording.tick(tick);
    if let agent::document::Body::AgentStarted(started) = &mut recording.envelopes[0].body {
        (started.host.name, started.host.kernel) = (hostile(), hostile());
    }
    for keys in ["", "⏎", "2", "3", "?", "/a\u{202e}"] {
        let mut app = App::default();
        for envelope in &recording.envelopes {
            app.update(Event::Envelope(Box::new(envelope.clone())));
        }
        app.update(Event::Ended(Some(hostile())));
        let screen = frame(&mut app, 160, 50, keys);
        let buffer = screen.buffer();
        let obeyed: Vec<&str> =
            buffer.content.iter().map(|cell| cell.symbol()).filter(|cell| cell.contains(is_obeyed)).collect();
        assert!(obeyed.is_empty(), "{keys}: {obeyed:?}");
        assert!(screen.to_string().contains("a[2J31m"), "{keys}: the names are there: {screen}");
    }
}

#[test]
fn too_small() {
    insta::assert_snapshot!(frame(&mut app(), 50, 20, ""));
}

#[test]
fn connections_80x24() {
    insta::assert_snapshot!(frame(&mut app(), 80, 24, "jj"));
}

#[test]
fn connections_120x40() {
    insta::assert_snapshot!(frame(&mut app(), 120, 40, ""));
}

#[test]
fn smallest() {
    insta::assert_snapshot!(frame(&mut app(), 60, 15, "G"));
}

#[test]
fn listeners_120x40() {
    insta::assert_snapshot!(frame(&mut app(), 120, 40, "2"));
}

#[test]
fn ceilings_80x24() {
    insta::assert_snapshot!(frame(&mut app(), 80, 24, "3"));
}

#[test]
fn ceilings_120x40() {
    insta::assert_snapshot!(frame(&mut app(), 120, 40, "3"));
}

#[test]
fn detail_80x24() {
    insta::assert_snapshot!(frame(&mut app(), 80, 24, "⏎⇟"));
}

#[test]
fn detail_120x40() {
    insta::assert_snapshot!(frame(&mut app(), 120, 40, "⏎"));
}

#[test]
fn help_80x24() {
    insta::assert_snapshot!(frame(&mut app(), 80, 24, "?"));
}

#[test]
fn filter_frozen_ended_80x24() {
    let mut app = app();
    app.update(Event::Ended(None));
    insta::assert_snapshot!(frame(&mut app, 80, 24, "p/:4001"));
}

#[test]
fn before_the_first_event_80x24() {
    insta::assert_snapshot!(frame(&mut App::default(), 80, 24, ""));
}

#[test]
fn no_size_makes_it_panic() {
    for width in 1..70 {
        for height in [1, 2, 14, 15, 16, 19, 20, 33] {
            for keys in ["", "2", "3", "⏎", "?"] {
                frame(&mut app(), width, height, keys);
            }
        }
    }
}

#[test]
fn without_colour_there_is_none() {
    let mut terminal = Terminal::new(TestBackend::new(120, 40)).expect("a terminal");
    terminal.draw(|frame| draw(frame, &mut app(), Theme::MONOCHROME)).expect("drawn");
    let colored = |cell: &ratatui::buffer::Cell| cell.fg != Color::Reset || cell.bg != Color::Reset;
    assert!(!terminal.backend().buffer().content.iter().any(colored));
}
