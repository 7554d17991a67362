//! All ceilings and where their numbers come from; advice; what cannot be seen.

use agent::document::{Ceiling, Level};
use agent::report::format::{cost, count, known, percent, quantity};
use agent::report::words::full_in;
use agent::report::{made_of, scope};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::app::App;
use crate::view::View;

use super::columns::{Field, fitting, row};
use super::lines::{self, wrap};
use super::theme::Theme;

struct Column {
    title: &'static str,
    width: usize,
    right: bool,
    rank: u8,
    cell: fn(&Ceiling) -> String,
}

const fn column(title: &'static str, width: usize, rank: u8, cell: fn(&Ceiling) -> String) -> Column {
    Column { title, width, right: true, rank, cell }
}

const COLUMNS: [Column; 9] = [
    Column {
        right: false,
        ..column("ceiling", 15, 0, |ceiling| {
            format!("{} {}", Theme::mark(ceiling.level), ceiling.kind.name())
        })
    },
    Column { right: false, ..column("scope", 20, 1, |ceiling| scope(&ceiling.scope)) },
    column("used", 11, 2, |ceiling| known(ceiling.used, |value| quantity(value, ceiling.unit))),
    column("limit", 11, 2, |ceiling| known(ceiling.limit, |value| quantity(value, ceiling.unit))),
    column("use", 4, 4, |ceiling| known(ceiling.utilization, percent)),
    column("each", 11, 6, |ceiling| known(ceiling.cost_per_connection, |value| cost(value, ceiling.unit))),
    column("left", 11, 1, |ceiling| known(ceiling.connections_left, count)),
    column("max", 11, 7, |ceiling| known(ceiling.connections_max, count)),
    column("full in", 18, 5, full_in),
];

pub(super) fn draw(frame: &mut Frame, area: Rect, app: &mut App, theme: Theme) {
    let text = text(app.view(), area.width.into(), theme);
    lines::draw(frame, area, &mut app.text, text);
}

fn text(view: &View, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let fields = COLUMNS.each_ref().map(|column| Field {
        title: column.title.to_owned(),
        width: column.width,
        right: column.right,
        rank: column.rank,
    });
    let kept = fitting(&fields, width);
    let dim = |text: &str| wrap(text, width, 2).into_iter().map(|line| Line::styled(line, theme.dim()));

    let mut text =
        vec![Line::styled(row(&fields, &kept, |place| fields[place].title.clone()), theme.title())];
    if view.ceilings().is_empty() {
        text.extend(dim("nothing was measured yet"));
    }
    for ceiling in view.ceilings() {
        let line = row(&fields, &kept, |place| (COLUMNS[place].cell)(ceiling));
        text.push(Line::styled(line, theme.level(ceiling.level)));
        text.extend(made_of(ceiling).iter().flat_map(|made_of| dim(made_of)));
        text.extend(dim(&ceiling.basis));
    }
    let advice = view.tick().map_or(&[][..], |tick| &tick.advice);
    if !advice.is_empty() {
        text.extend([Line::raw(""), Line::styled("advice", theme.title())]);
    }
    for advice in advice {
        let effect = advice.effect;
        let action = format!(
            "{}: {}: {} → {} connections",
            advice.ceiling.name(),
            advice.action,
            count(effect.connections_max_before),
            count(effect.connections_max_after),
        );
        text.extend(wrap(&action, width, 0).into_iter().map(Line::raw));
        text.extend(dim(&advice.evidence));
    }
    let degraded = view.degraded();
    if !degraded.is_empty() {
        text.extend([Line::raw(""), Line::styled("not available", theme.title())]);
    }
    for missing in degraded {
        let line = format!("{} {}: {}", Theme::mark(Level::Unknown), missing.probe, missing.reason);
        text.extend(wrap(&line, width, 0).into_iter().map(Line::raw));
    }
    text
}
