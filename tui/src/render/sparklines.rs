//! The last minutes: connections, memory, ping traffic.

use agent::report::format::{bytes, count, known, significant};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{RenderDirection, Sparkline};

use crate::app::App;
use crate::view::Sample;

use super::theme::Theme;

struct Curve {
    title: &'static str,
    value: fn(&Sample) -> Option<u64>,
    label: fn(&Sample) -> String,
}

const CURVES: [Curve; 3] = [
    Curve {
        title: "connections",
        value: |sample| Some(sample.connections),
        label: |sample| count(sample.connections),
    },
    Curve {
        title: "host memory",
        value: |sample| sample.memory_bytes,
        label: |sample| known(sample.memory_bytes, bytes),
    },
    Curve {
        title: "pings and pongs",
        // Tenths keep the shape of a curve below one frame a second.
        value: |sample| sample.ping_rate.map(|rate| (rate * 10.0) as u64),
        label: |sample| known(sample.ping_rate, |rate| format!("{}/s", rate_text(rate))),
    },
];

pub(super) fn draw(frame: &mut Frame, area: Rect, app: &App, theme: Theme) {
    if area.height < 2 {
        return;
    }
    let columns: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).spacing(2).areas(area);
    let history = app.view().history();
    for (curve, column) in CURVES.iter().zip(columns) {
        let [title, chart] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(column);
        let label = history.last().map_or_else(String::new, curve.label);
        let line = Line::from(vec![Span::styled(curve.title, theme.dim()), Span::raw(" "), Span::raw(label)]);
        frame.render_widget(line, title);
        // The newest at the right edge: from there the row grows to the left.
        let newest_first: Vec<Option<u64>> =
            history.samples().rev().take(chart.width.into()).map(curve.value).collect();
        let sparkline = Sparkline::default()
            .data(newest_first)
            .direction(RenderDirection::RightToLeft)
            .absent_value_symbol(" ")
            .style(theme.curve());
        frame.render_widget(sparkline, chart);
    }
}

fn rate_text(rate: f64) -> String {
    if rate >= 1000.0 { count(rate.round() as u64) } else { significant(rate) }
}
