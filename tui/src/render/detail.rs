//! Everything about one connection.

use agent::document::{Connection, Traffic};
use agent::report::format::{UNKNOWN, age, bytes, count, known, latency};
use agent::report::words;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear};

use crate::app::{App, Mode};
use crate::view::View;

use super::lines;
use super::theme::Theme;

/// A titled list of names and values.
struct Section {
    title: &'static str,
    entries: Vec<(&'static str, String)>,
}

/// Width at which the sections stand side by side.
const WIDE: u16 = 110;

pub(super) fn draw(frame: &mut Frame, area: Rect, app: &mut App, theme: Theme) {
    let Some(detail) = app.detail() else { return };
    let connection = &detail.connection;
    let title = format!(
        " {} ↔ {}{} ",
        connection.local,
        connection.remote,
        if detail.closed { " (closed)" } else { "" }
    );
    let block = Block::bordered().title(Span::styled(title, theme.title()));
    let inner = block.inner(area);
    let sections = [identity(connection, app.view()), traffic(connection), memory(connection)];
    let text =
        if area.width >= WIDE { beside(&sections, inner.width, theme) } else { below(&sections, theme) };
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    if app.mode() == Mode::Detail {
        lines::draw(frame, inner, &mut app.text, text);
    } else {
        // Something is on top and has the scroll keys.
        lines::draw(frame, inner, &mut app.text.clone(), text);
    }
}

fn below(sections: &[Section], theme: Theme) -> Vec<Line<'static>> {
    sections.iter().flat_map(|section| section.lines(theme)).collect()
}

fn beside(sections: &[Section], width: u16, theme: Theme) -> Vec<Line<'static>> {
    let column = usize::from(width) / sections.len();
    let columns: Vec<Vec<Line>> = sections.iter().map(|section| section.lines(theme)).collect();
    let height = columns.iter().map(Vec::len).max().unwrap_or(0);
    let line = |row: usize| {
        let mut spans = Vec::new();
        for lines in &columns {
            let line = lines.get(row).cloned().unwrap_or_default();
            let padding = column.saturating_sub(line.width());
            spans.extend(line.spans);
            spans.push(Span::raw(" ".repeat(padding)));
        }
        Line::from(spans)
    };
    (0..height).map(line).collect()
}

impl Section {
    fn lines(&self, theme: Theme) -> Vec<Line<'static>> {
        let title = Line::from(Span::styled(self.title, theme.title()));
        let entry = |(name, value): &(&'static str, String)| {
            Line::from(vec![Span::styled(format!("{name:<15} "), theme.dim()), Span::raw(value.clone())])
        };
        [title].into_iter().chain(self.entries.iter().map(entry)).collect()
    }
}

fn identity(connection: &Connection, view: &View) -> Section {
    let number = |value: Option<u32>| known(value, |value| value.to_string());
    let process = connection.pid.and_then(|pid| view.command(pid)).unwrap_or(UNKNOWN);
    let age_seconds = crate::app::age_seconds(connection, view);
    let ping = &connection.ping;
    let mut entries = vec![
        ("id", connection.id.clone()),
        ("role", words::role(connection.role).to_owned()),
        ("transport", words::transport(connection.transport).to_owned()),
        ("process", process.to_owned()),
        ("pid", number(connection.pid)),
        ("descriptor", number(connection.fd)),
        ("opened", known(connection.opened, |opened| format!("{opened:.0}"))),
        ("age", known(age_seconds, age)),
        ("parse", words::trust(connection).to_owned()),
        ("unparsed", bytes(connection.unparsed_bytes)),
        ("close code", known(connection.close_code, |code| code.to_string())),
        ("ping interval", known(ping.interval_seconds, latency)),
        ("ping rtt", known(ping.rtt_seconds, latency)),
        ("pings missed", known(ping.missed, count)),
        ("pongs unasked", known(ping.unsolicited, count)),
        ("pings sent by", known(ping.sent_by, |by| words::pinger(by).to_owned())),
    ];
    if let Some(stalls) = &connection.stalls {
        entries.extend([
            ("retransmitted", known(stalls.retransmitted_segments, count)),
            ("stalls", format!("{} ({})", count(stalls.count), latency(stalls.seconds))),
        ]);
    }
    if let Some(upgrade) = &connection.upgrade {
        let text = |text: &Option<String>| known(text.as_ref(), |text| text.clone());
        entries.extend([
            ("path", text(&upgrade.path)),
            ("host", text(&upgrade.host)),
            ("origin", text(&upgrade.origin)),
            ("user agent", text(&upgrade.user_agent)),
            ("subprotocol", text(&upgrade.subprotocol)),
            ("upgrade took", known(upgrade.latency_seconds, latency)),
            ("tcp handshake", known(upgrade.tcp_handshake_seconds, latency)),
        ]);
    }
    match &connection.deflate {
        None => entries.push(("compression", "none".to_owned())),
        Some(deflate) => {
            let side = |bits: u8, forgets: bool| {
                format!("{bits} bits{}", if forgets { ", no takeover" } else { "" })
            };
            entries.extend([
                ("server window", side(deflate.server_max_window_bits, deflate.server_no_context_takeover)),
                ("client window", side(deflate.client_max_window_bits, deflate.client_no_context_takeover)),
                ("zlib estimate", bytes(deflate.estimated_bytes)),
            ]);
        }
    }
    Section { title: "connection", entries }
}

fn traffic(connection: &Connection) -> Section {
    type Cell = fn(&Traffic) -> String;
    const ROWS: [(&str, Cell); 14] = [
        ("frames", |traffic| known(traffic.frames, count)),
        ("text", |traffic| known(traffic.text, count)),
        ("binary", |traffic| known(traffic.binary, count)),
        ("continuation", |traffic| known(traffic.continuation, count)),
        ("ping", |traffic| known(traffic.ping, count)),
        ("pong", |traffic| known(traffic.pong, count)),
        ("close", |traffic| known(traffic.close, count)),
        ("compressed", |traffic| known(traffic.compressed_frames, count)),
        ("payload", |traffic| known(traffic.payload_bytes, bytes)),
        ("control payload", |traffic| known(traffic.control_bytes, bytes)),
        ("frame headers", |traffic| known(traffic.header_bytes, bytes)),
        ("stream", |traffic| bytes(traffic.stream_bytes)),
        ("packets", |traffic| count(traffic.packets)),
        ("on the wire", |traffic| bytes(traffic.packet_bytes)),
    ];
    let mut entries = vec![("", format!("{:>9} {:>9}", "received", "sent"))];
    entries.extend(ROWS.map(|(name, cell)| {
        let [received, sent] =
            [connection.received, connection.sent].map(|traffic| known(traffic.as_ref(), cell));
        (name, format!("{received:>9} {sent:>9}"))
    }));
    Section { title: "traffic", entries }
}

fn memory(connection: &Connection) -> Section {
    let memory = &connection.memory;
    let entries = [
        ("kernel, all", memory.kernel_bytes),
        ("receive queue", memory.receive_bytes),
        ("write queue", memory.send_bytes),
        ("forward alloc", memory.forward_alloc_bytes),
        ("fixed", memory.fixed_bytes),
        ("transmit", memory.transmit_bytes),
        ("options", memory.option_bytes),
        ("backlog", memory.backlog_bytes),
        ("receive limit", memory.receive_limit_bytes),
        ("send limit", memory.send_limit_bytes),
        ("unread", memory.receive_queue_bytes),
        ("unacknowledged", memory.send_queue_bytes),
    ];
    Section {
        title: "kernel memory",
        entries: entries.map(|(name, value)| (name, known(value, bytes))).to_vec(),
    }
}
