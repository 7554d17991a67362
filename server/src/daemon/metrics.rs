//! What is measured, under which names, and as OpenMetrics text. Everything is read when somebody asks.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::Shared;
use super::figures::{Failed, Figures, ROUND_TRIPS, Refused};
use crate::{limits, memory};

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Before every name of ours. Those of the process as such are named as everywhere.
const PREFIX: &str = "headroom_server";

/// A figure of each listener: its name, what it is, and where it comes from.
type Figure = (&'static str, &'static str, fn(&Figures) -> u64);

/// What only grows; the encoder appends `_total`.
const COUNTERS: [Figure; 8] = [
    ("connections_accepted", "TCP connections let in", |figures| figures.accepted.get()),
    ("websockets_opened", "WebSockets opened, streams of HTTP/2 among them", |figures| figures.opened.get()),
    ("pings_sent", "Pings sent", |figures| figures.pings.get()),
    ("pongs_received", "Pongs received, also such as nobody asked for", |figures| figures.pongs.get()),
    ("pings_missed", "Pings that had no answer when the next was due", |figures| figures.missed.get()),
    ("ping_timeouts", "Connections given up for want of answers", |figures| figures.ping_timeouts.get()),
    ("relay_dropped", "Messages that slow members of rooms lost", |figures| figures.relay_dropped.get()),
    ("slow_consumers_closed", "Slow members of rooms sent away", |figures| figures.slow_closed.get()),
];

/// What comes and goes.
const GAUGES: [Figure; 2] = [
    ("websockets_active", "Open WebSockets that have a task", |figures| {
        let (open, parked) = figures.open();
        open - parked
    }),
    ("websockets_parked", "Open WebSockets that are idle and have none", |figures| figures.open().1),
];

/// A scrape's view of the server.
pub(super) struct Scrape {
    pub(super) shared: Arc<Shared>,
    /// Names of the listeners.
    pub(super) listeners: Arc<[String]>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl Scrape {
    /// All of it as text.
    pub(super) fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    fn listeners(&self) -> impl Iterator<Item = (&str, &Figures)> {
        self.listeners.iter().map(String::as_str).zip(self.shared.roster.figures.iter())
    }

    /// One number.
    fn single(
        out: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: u64,
    ) -> fmt::Result {
        out.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&saturated(value))
    }

    /// One number for each listener.
    fn each(&self, out: &mut DescriptorEncoder<'_>, kind: MetricType, figure: &Figure) -> fmt::Result {
        let (name, help, read) = figure;
        let name = format!("{PREFIX}_{name}");
        let mut metric = out.encode_descriptor(&name, help, None, kind)?;
        for (listener, figures) in self.listeners() {
            let labels = [("listener", listener)];
            let mut one = metric.encode_family(&labels)?;
            match kind {
                MetricType::Counter => one.encode_counter::<NoLabelSet, _, u64>(&read(figures), None)?,
                _ => one.encode_gauge(&saturated(read(figures)))?,
            }
        }
        Ok(())
    }

    /// A counter for each listener and each value of `label`.
    fn split<'a>(
        &self,
        out: &mut DescriptorEncoder<'_>,
        name_and_help: (&str, &str),
        unit: Option<&Unit>,
        label: &str,
        read: impl Fn(&Figures) -> Vec<(&'a str, u64)>,
    ) -> fmt::Result {
        let name = format!("{PREFIX}_{}", name_and_help.0);
        let mut metric = out.encode_descriptor(&name, name_and_help.1, unit, MetricType::Counter)?;
        for (listener, figures) in self.listeners() {
            for (value, count) in read(figures) {
                let labels = [("listener", listener), (label, value)];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn by_reason(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let refused = ("connections_refused", "Connections and streams beyond a limit, by limit");
        self.split(out, refused, None, "reason", |figures| {
            Refused::ALL.map(|(reason, name)| (name, figures.refused(reason))).to_vec()
        })?;
        let failed = ("handshakes_failed", "Requests that did not end as a WebSocket or a page, by reason");
        self.split(out, failed, None, "reason", |figures| {
            Failed::ALL.map(|(reason, name)| (name, figures.failed(reason))).to_vec()
        })
    }

    fn traffic(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let messages =
            ("messages", "Messages, by direction; sent is given to the protocol engine or the kernel");
        self.split(out, messages, None, "direction", |figures| {
            vec![("received", figures.received.messages.get()), ("sent", figures.sent.messages.get())]
        })?;
        let payload = ("message_payload", "Payload of messages, uncompressed, by direction");
        self.split(out, payload, Some(&Unit::Bytes), "direction", |figures| {
            vec![("received", figures.received.bytes.get()), ("sent", figures.sent.bytes.get())]
        })
    }

    fn round_trips(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "From the beginning of the turn in which a ping was due to its pong; sockets only, and only where one ping was open";
        let name = format!("{PREFIX}_ping_round_trip");
        let mut metric = out.encode_descriptor(&name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (listener, figures) in self.listeners() {
            let (counts, sum) = figures.round_trips();
            let bounds = ROUND_TRIPS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            let labels = [("listener", listener)];
            let mut one = metric.encode_family(&labels)?;
            one.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)?;
        }
        Ok(())
    }

    fn process(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = |name| format!("{PREFIX}_{name}");
        let places = self.shared.porter.open() as u64;
        Self::single(
            out,
            &name("connections"),
            "Places taken: WebSockets, HTTP/2 connections, handshakes",
            None,
            places,
        )?;
        Self::single(out, &name("rooms"), "Rooms with members", None, self.shared.roster.rooms() as u64)?;
        let draining = u64::from(self.shared.roster.draining());
        Self::single(out, &name("draining"), "1 once the server is going away", None, draining)?;
        let parkings = self.shared.roster.parkings.load(Ordering::Relaxed);
        out.encode_descriptor(&name("parkings"), "Times a connection was parked", None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&parkings, None)?;
        // What cannot be read is not there.
        if let Some(bytes) = memory::resident() {
            Self::single(out, "process_resident_memory", "Resident memory", Some(&Unit::Bytes), bytes)?;
        }
        if let Some(open) = limits::open_now() {
            Self::single(out, "process_open_fds", "Open descriptors", None, open)?;
        }
        if let Some(most) = limits::Descriptors::current().now {
            Self::single(out, "process_max_fds", "Limit on open descriptors", None, most)?;
        }
        Ok(())
    }
}

impl Collector for Scrape {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        COUNTERS.iter().try_for_each(|figure| self.each(&mut out, MetricType::Counter, figure))?;
        GAUGES.iter().try_for_each(|figure| self.each(&mut out, MetricType::Gauge, figure))?;
        self.by_reason(&mut out)?;
        self.traffic(&mut out)?;
        self.round_trips(&mut out)?;
        self.process(&mut out)
    }
}

/// A gauge's number; the format's are signed.
fn saturated(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A response of HTTP/1.1 that is the last on its connection.
pub(super) fn response(status: &str, kind: &str, body: &str) -> String {
    let mut text = String::with_capacity(body.len() + 256);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    text
}
