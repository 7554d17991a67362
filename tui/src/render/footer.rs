//! How far the numbers can be trusted, and the keys of the moment.

use agent::document::{Connection, Evidence, Parse};
use agent::report::format::{count, span};
use agent::report::words;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span, Text};

use crate::app::{App, BINDINGS};
use crate::view::View;

use super::lines::clip;
use super::theme::Theme;

pub(super) const HEIGHT: u16 = 2;

const PARSES: [Parse; 4] = [Parse::Exact, Parse::Adopted, Parse::Unsynced, Parse::Encrypted];

pub(super) fn draw(frame: &mut Frame, area: Rect, app: &App, theme: Theme) {
    frame.render_widget(
        Text::from(vec![clip(trust(app, theme), area.width), keys(app, area.width, theme)]),
        area,
    );
}

fn trust(app: &App, theme: Theme) -> Line<'static> {
    let view = app.view();
    let mut spans: Vec<Span> = Vec::new();
    let mut say = |text: String, style| {
        if !spans.is_empty() {
            spans.push(Span::styled(" · ", theme.dim()));
        }
        spans.push(Span::styled(text, style));
    };
    // First, because it explains why everything else stands still.
    match (app.ended(), view.stopped()) {
        (Some(Some(error)), _) => say(format!("stream ended: {error}"), theme.alert()),
        (Some(None), None) => say("stream ended".to_owned(), theme.alert()),
        (Some(None), Some(reason)) => say(format!("stream ended: agent stopped ({reason})"), theme.alert()),
        (None, Some(reason)) => say(format!("agent stopped ({reason})"), theme.alert()),
        (None, None) => {}
    }
    say(parses(view), theme.dim());
    if let Some(tick) = view.tick() {
        let dropped = tick.agent.events_dropped;
        say(format!("dropped {}", count(dropped)), if dropped > 0 { theme.alert() } else { theme.dim() });
        let age = tick.agent.sweep_age_seconds;
        say(
            age.map_or_else(|| "no sweep yet".to_owned(), |age| format!("swept {} ago", span(age))),
            theme.dim(),
        );
    }
    if view.lost() > 0 {
        say(format!("missing {}", count(view.lost())), theme.alert());
    }
    let degraded = view.degraded();
    if !degraded.is_empty() {
        let probes: Vec<&str> = degraded.iter().map(|missing| missing.probe.as_str()).collect();
        say(format!("degraded: {}", probes.join(", ")), theme.alert());
    }
    Line::from(spans)
}

/// `22 exact, 1 adopted`: states that no connection is in are left out, except the one that should be.
fn parses(view: &View) -> String {
    let presumed = |connection: &&Connection| connection.evidence == Some(Evidence::Presumed);
    let counted = PARSES.map(|parse| {
        let recognised = view.connections().filter(|connection| !presumed(connection));
        (parse, recognised.filter(|connection| connection.parse == parse).count() as u64)
    });
    let shown = counted.iter().filter(|(parse, connections)| *parse == Parse::Exact || *connections > 0);
    let mut texts: Vec<String> =
        shown.map(|(parse, n)| format!("{} {}", count(*n), words::parse(*parse))).collect();
    let presumed = view.connections().filter(presumed).count() as u64;
    if presumed > 0 {
        texts.push(format!("{} {}", count(presumed), words::PRESUMED));
    }
    texts.join(", ")
}

/// As many keys as fit, whole ones.
fn keys(app: &App, width: u16, theme: Theme) -> Line<'static> {
    let mode = app.mode();
    let mut line = Line::default();
    for binding in BINDINGS.iter().filter(|binding| binding.modes.contains(&mode)) {
        let (Some(hint), Some(key)) = (binding.hint, binding.keys.first()) else {
            continue;
        };
        let (key, hint) = (Span::styled(key.to_string(), theme.key()), Span::raw(format!(" {hint}  ")));
        if line.width() + key.width() + hint.width() > usize::from(width) + 2 {
            break;
        }
        line.spans.extend([key, hint]);
    }
    line
}
