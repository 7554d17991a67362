//! The state machine, key by key.

use super::*;
use crate::fixture::{self, Recording};

fn app() -> App {
    let mut app = App::default();
    hear(&mut app, fixture::recording(2));
    app.table.fit(10, fixture::CONNECTIONS as usize);
    app
}

fn hear(app: &mut App, envelopes: Vec<Envelope>) {
    for envelope in envelopes {
        app.update(Event::Envelope(Box::new(envelope)));
    }
}

fn press(app: &mut App, code: KeyCode) -> Effect {
    app.update(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn type_keys(app: &mut App, keys: &str) {
    for key in keys.chars() {
        press(app, KeyCode::Char(key));
    }
}

fn selected(app: &App) -> String {
    let rows = app.rows();
    rows[app.position(&rows)].id.clone()
}

#[test]
fn q_quits_except_where_it_is_a_letter() {
    let mut app = app();
    assert_eq!(press(&mut app, KeyCode::Char('q')), Effect::Quit);
    type_keys(&mut app, "/q");
    assert_eq!(app.filter(), "q");
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.update(Event::Key(interrupt)), Effect::Quit);
}

#[test]
fn escape_closes_what_is_on_top_one_at_a_time() {
    let mut app = app();
    type_keys(&mut app, "/1234");
    press(&mut app, KeyCode::Enter);
    press(&mut app, KeyCode::Enter);
    type_keys(&mut app, "?");
    let mut modes = vec![app.mode()];
    for _ in 0..2 {
        press(&mut app, KeyCode::Esc);
        modes.push(app.mode());
    }
    assert_eq!(modes, [Mode::Help, Mode::Detail, Mode::Connections]);
    assert_eq!(app.filter(), "1234", "closing the pane keeps the filter");
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.filter(), "");
}

#[test]
fn the_filter_is_edited_and_dropped() {
    let mut app = app();
    type_keys(&mut app, "/:4000x");
    press(&mut app, KeyCode::Backspace);
    assert_eq!(app.filter(), ":4000");
    assert_eq!(app.rows().len(), 5);
    press(&mut app, KeyCode::Esc);
    assert_eq!((app.filter(), app.mode()), ("", Mode::Connections));
}

#[test]
fn the_selection_moves_by_lines_pages_and_ends() {
    let mut app = app();
    let at = |app: &App| app.position(&app.rows());
    type_keys(&mut app, "jjk");
    assert_eq!(at(&app), 1);
    press(&mut app, KeyCode::PageDown);
    assert_eq!(at(&app), 10);
    type_keys(&mut app, "G");
    assert_eq!(at(&app), fixture::CONNECTIONS as usize - 1);
    type_keys(&mut app, "j");
    assert_eq!(at(&app), fixture::CONNECTIONS as usize - 1);
    type_keys(&mut app, "g");
    assert_eq!(at(&app), 0);
}

#[test]
fn the_selection_stays_with_its_connection() {
    let mut app = app();
    type_keys(&mut app, "jj");
    let before = selected(&app);
    type_keys(&mut app, "I");
    assert_eq!(selected(&app), before);
    type_keys(&mut app, "s");
    assert_eq!(selected(&app), before);
}

#[test]
fn frozen_means_frozen_but_nothing_is_missed() {
    let mut app = app();
    type_keys(&mut app, "p");
    let mut recording = Recording::new();
    recording.opened(fixture::connection(99));
    let envelope = recording.envelopes.remove(1);
    assert_eq!(app.update(Event::Envelope(Box::new(envelope))), Effect::None);
    assert!(app.view().connection("4196").is_none());
    type_keys(&mut app, " ");
    assert!(!app.is_frozen());
    assert!(app.view().connection("4196").is_some());
}

#[test]
fn the_detail_pane_follows_its_connection_to_the_end() {
    let mut app = app();
    press(&mut app, KeyCode::Enter);
    let mut last = app.detail().expect("open").connection.clone();
    last.close_code = Some(1000);
    let mut recording = Recording::new();
    recording.closed(last);
    app.update(Event::Envelope(Box::new(recording.envelopes.remove(1))));
    let detail = app.detail().expect("still open");
    assert!(detail.closed);
    assert_eq!(detail.connection.close_code, Some(1000));
}

#[test]
fn enter_on_nothing_opens_nothing() {
    let mut app = App::default();
    press(&mut app, KeyCode::Enter);
    type_keys(&mut app, "jGk");
    assert_eq!(app.mode(), Mode::Connections);
}

#[test]
fn screens_go_round_and_have_numbers() {
    let mut app = app();
    press(&mut app, KeyCode::BackTab);
    assert_eq!(app.screen(), Screen::Ceilings);
    press(&mut app, KeyCode::Tab);
    assert_eq!(app.screen(), Screen::Connections);
    type_keys(&mut app, "2");
    assert_eq!(app.mode(), Mode::Listeners);
}

#[test]
fn unbound_keys_cost_no_redraw() {
    assert_eq!(press(&mut app(), KeyCode::Char('~')), Effect::None);
}

#[test]
fn the_end_of_the_stream_leaves_the_last_state() {
    let mut app = app();
    assert_eq!(app.update(Event::Ended(Some("gone".into()))), Effect::Redraw);
    assert_eq!(app.ended(), Some(Some("gone")));
    assert_eq!(app.rows().len(), fixture::CONNECTIONS as usize);
}
