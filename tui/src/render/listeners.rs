//! The listener table.

use agent::document::{Listener, Traffic};
use agent::report::format::{bytes, count_short, known};
use agent::report::words;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::app::App;

use super::columns::{Field, fitting, row};
use super::lines;
use super::theme::Theme;

struct Column {
    title: &'static str,
    width: usize,
    rank: u8,
    cell: fn(&Listener) -> String,
}

const fn column(title: &'static str, width: usize, rank: u8, cell: fn(&Listener) -> String) -> Column {
    Column { title, width, rank, cell }
}

const COLUMNS: [Column; 19] = [
    column("port", 5, 0, |listener| listener.port.to_string()),
    column("role", 6, 1, |listener| words::role(listener.role).to_owned()),
    column("open", 8, 2, |listener| count_short(listener.connections)),
    column("presumed", 8, 14, |listener| count_short(listener.presumed)),
    column("opened", 8, 8, |listener| count_short(listener.opened)),
    column("adopted", 8, 12, |listener| count_short(listener.adopted)),
    column("refused", 8, 13, |listener| count_short(listener.refused.values().sum())),
    column("closed", 8, 9, |listener| count_short(listener.closed)),
    column("frames in", 9, 5, |listener| known(listener.received.frames, count_short)),
    column("out", 8, 5, |listener| known(listener.sent.frames, count_short)),
    column("pings in", 8, 3, |listener| known(listener.received.ping, count_short)),
    column("out", 8, 3, |listener| known(listener.sent.ping, count_short)),
    column("pongs in", 8, 4, |listener| known(listener.received.pong, count_short)),
    column("out", 8, 4, |listener| known(listener.sent.pong, count_short)),
    column("payload", 8, 6, |listener| known(both(listener, |traffic| traffic.payload_bytes), bytes)),
    column("on wire", 8, 7, |listener| known(both(listener, |traffic| Some(traffic.packet_bytes)), bytes)),
    column("packets", 8, 10, |listener| known(both(listener, |traffic| Some(traffic.packets)), count_short)),
    column("unparsed", 8, 6, |listener| bytes(listener.unparsed_bytes)),
    column("netns", 10, 11, |listener| listener.netns.to_string()),
];

pub(super) fn draw(frame: &mut Frame, area: Rect, app: &mut App, theme: Theme) {
    let fields = COLUMNS.each_ref().map(|column| Field {
        title: column.title.to_owned(),
        width: column.width,
        right: column.title != "role",
        rank: column.rank,
    });
    let kept = fitting(&fields, area.width.into());
    let header = row(&fields, &kept, |place| fields[place].title.clone());
    let mut text = vec![Line::styled(header, theme.title())];
    let listeners = app.view().listeners();
    if listeners.is_empty() {
        text.push(Line::styled("no listener has carried a WebSocket yet", theme.dim()));
    }
    text.extend(
        listeners
            .iter()
            .map(|listener| Line::raw(row(&fields, &kept, |place| (COLUMNS[place].cell)(listener)))),
    );
    lines::draw(frame, area, &mut app.text, text);
}

fn both(listener: &Listener, field: fn(&Traffic) -> Option<u64>) -> Option<u64> {
    Some(field(&listener.received)? + field(&listener.sent)?)
}
