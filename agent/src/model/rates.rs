//! What a connection puts on the wire, from the listeners' totals of the last two minutes.
//!
//! Bytes are set against connection-seconds, not seconds: while the count grows, a rate divided by the present count would be
//! too low. The window is long because pings are rare: in ten seconds, connections that are pinged every thirty may all be
//! silent or all be pinged.

use std::collections::VecDeque;
use std::time::Duration;

use super::wire::{CONTROL_HEADER, MASK};
use super::{Estimate, slope};
use crate::document::{CostPart, Listener, Part, Role, Traffic};

/// How far back a rate looks, how far apart its samples are, and what it takes at least.
const WINDOW: Duration = Duration::from_secs(120);
const SPACING: Duration = Duration::from_millis(2100);
const SHORTEST: Duration = Duration::from_millis(900);
/// From this many samples on their spread is an interval.
const SPREAD_FROM: usize = 6;

/// Sums since the agent attached, one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    packets: f64,
    /// IP packets whole.
    packet_bytes: f64,
    /// The part of the packets and of their bytes that is pings, pongs and the acknowledgements of pongs.
    keepalive_packets: f64,
    keepalive_bytes: f64,
    pings: f64,
    pongs: f64,
    /// Payload of control frames.
    control_bytes: f64,
    /// Messages, the compressed ones among them, and their payload.
    messages: f64,
    compressed: f64,
    payload_bytes: f64,
    /// Whether frames of some listener cannot be seen, so that what is counted of frames is not all there is.
    blind: bool,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    connection_seconds: f64,
    received: Sums,
    sent: Sums,
}

/// The samples.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    samples: VecDeque<Sample>,
}

/// What one connection carries a second, in the busier direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// All of it.
    pub all: Estimate,
    /// The part of it that keeps connections alive.
    pub keepalive: f64,
}

/// What connections carry, both directions together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// How long that was watched.
    pub seconds: f64,
    /// Pings to or from one connection a second.
    pub pings_per_second: f64,
    /// Messages to or from one connection a second.
    pub messages_per_second: f64,
    pings_and_pongs: f64,
    control_bytes: f64,
    messages: f64,
    compressed: f64,
    payload_bytes: f64,
}

impl Mix {
    /// Seconds between two pings of a connection; `None` where there are no pings.
    pub fn ping_interval(&self) -> Option<f64> {
        (self.pings_per_second > 0.0).then(|| 1.0 / self.pings_per_second)
    }

    /// Mean payload of a ping or pong in bytes.
    pub fn control_payload(&self) -> Option<f64> {
        (self.pings_and_pongs > 0.0).then(|| self.control_bytes / self.pings_and_pongs)
    }

    /// Mean payload of a message in bytes, as it was sent.
    pub fn message_payload(&self) -> Option<f64> {
        (self.messages > 0.0).then(|| self.payload_bytes / self.messages)
    }

    /// The share of messages that are compressed (RSV1).
    pub fn compressed_share(&self) -> Option<f64> {
        (self.messages > 0.0).then(|| self.compressed / self.messages)
    }
}

impl Rate {
    /// The two parts as a document has them.
    pub(super) fn parts(&self) -> Vec<CostPart> {
        let part = |part, cost| CostPart { part, cost, range: None, samples: self.all.samples };
        vec![part(Part::Keepalive, self.keepalive), part(Part::Application, self.all.value - self.keepalive)]
    }
}

impl Rates {
    /// Takes the listeners' totals at monotonic time `at`, and how many connections they have open.
    pub fn observe<'a>(&mut self, at: Duration, listeners: impl Iterator<Item = &'a Listener>) {
        let (mut received, mut sent, mut connections) = (Sums::default(), Sums::default(), 0);
        for listener in listeners {
            connections += listener.connections;
            let (in_header, out_header) = match listener.role {
                Role::Server => (MASKED_HEADER, HEADER),
                Role::Client => (HEADER, MASKED_HEADER),
            };
            received.add(&listener.received, &listener.sent, in_header);
            sent.add(&listener.sent, &listener.received, out_header);
        }
        let before = self.samples.back();
        let elapsed = before.map_or(Duration::ZERO, |before| at.saturating_sub(before.at)).as_secs_f64();
        let so_far = before.map_or(0.0, |before| before.connection_seconds);
        let sample = Sample { at, connection_seconds: so_far + connections as f64 * elapsed, received, sent };
        // Of samples that come faster than the spacing, the newest stands.
        if let [.., earlier, last] = self.samples.make_contiguous()
            && at.saturating_sub(earlier.at) < SPACING
        {
            *last = sample;
            return;
        }
        self.samples.push_back(sample);
        while self.samples.front().is_some_and(|first| at.saturating_sub(first.at) > WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Bits a second of one connection on a link that adds `framing` bytes to each IP packet; `None` where nothing is carried
    /// or too little was seen.
    pub fn bits(&self, framing: u64) -> Option<Rate> {
        let framing = framing as f64;
        let all = move |sums: &Sums| 8.0 * (sums.packet_bytes + sums.packets * framing);
        let keepalive = move |sums: &Sums| 8.0 * (sums.keepalive_bytes + sums.keepalive_packets * framing);
        self.rate(&all, &keepalive)
    }

    /// Packets a second of one connection.
    pub fn packets(&self) -> Option<Rate> {
        self.rate(&|sums| sums.packets, &|sums| sums.keepalive_packets)
    }

    /// What connections carry; `None` where too little was seen, or where frames of some cannot be.
    pub fn mix(&self) -> Option<Mix> {
        let (first, last, lived) = self.window()?;
        if last.received.blind || last.sent.blind {
            return None;
        }
        let grown = |of: &dyn Fn(&Sums) -> f64| {
            let both = |sample: &Sample| of(&sample.received) + of(&sample.sent);
            (both(last) - both(first)).max(0.0)
        };
        let (pings, messages) = (grown(&|sums| sums.pings), grown(&|sums| sums.messages));
        Some(Mix {
            seconds: (last.at - first.at).as_secs_f64(),
            pings_per_second: pings / lived,
            messages_per_second: messages / lived,
            pings_and_pongs: pings + grown(&|sums| sums.pongs),
            control_bytes: grown(&|sums| sums.control_bytes),
            messages,
            compressed: grown(&|sums| sums.compressed),
            payload_bytes: grown(&|sums| sums.payload_bytes),
        })
    }

    /// The oldest and the newest sample, and the connection-seconds between them.
    fn window(&self) -> Option<(&Sample, &Sample, f64)> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let lived = last.connection_seconds - first.connection_seconds;
        (last.at.saturating_sub(first.at) >= SHORTEST && lived > 0.0).then_some((first, last, lived))
    }

    fn rate(&self, all: &dyn Fn(&Sums) -> f64, keepalive: &dyn Fn(&Sums) -> f64) -> Option<Rate> {
        let (first, last, lived) = self.window()?;
        let [received, sent] = [Self::received as fn(&Sample) -> &Sums, Self::sent].map(|direction| {
            let grown = |of: &dyn Fn(&Sums) -> f64| (of(direction(last)) - of(direction(first))).max(0.0);
            (grown(all), grown(keepalive), direction)
        });
        let (bits, kept, direction) = if received.0 > sent.0 { received } else { sent };
        let value = bits / lived;
        if value <= 0.0 {
            return None;
        }
        let (mut least, mut most) = (value, value);
        if self.samples.len() >= SPREAD_FROM {
            let point = |sample: &Sample| (sample.connection_seconds, all(direction(sample)));
            let points: Vec<(f64, f64)> = self.samples.iter().map(point).collect();
            // A median leaves bursts out, and they are as real as the rest: the mean stands, the slopes say how it wavers.
            if let Some(slope) = slope(&points) {
                (least, most) = (least.min(slope.least.max(0.0)), most.max(slope.most));
            }
        }
        let all = Estimate { value, least, most, samples: self.samples.len() as u64 };
        Some(Rate { all, keepalive: (kept / lived).min(value) })
    }

    fn received(sample: &Sample) -> &Sums {
        &sample.received
    }

    fn sent(sample: &Sample) -> &Sums {
        &sample.sent
    }
}

/// Frame headers of control frames; what clients send is masked.
const HEADER: f64 = CONTROL_HEADER as f64;
const MASKED_HEADER: f64 = (CONTROL_HEADER + MASK) as f64;

impl Sums {
    /// A ping and a pong are a packet each. The pong acknowledges the ping; nothing else travels to acknowledge the pong, so
    /// that takes a packet of its own.
    fn add(&mut self, traffic: &Traffic, opposite: &Traffic, frame_header: f64) {
        let (packets, bytes) = (traffic.packets as f64, traffic.packet_bytes as f64);
        self.packets += packets;
        self.packet_bytes += bytes;
        let known = |count: Option<u64>| count.unwrap_or(0) as f64;
        let frames = known(traffic.ping) + known(traffic.pong);
        let acknowledged = known(opposite.pong);
        // The mean of what IP and TCP add to a packet, with their options, as measured.
        let headers = (bytes - traffic.stream_bytes as f64).max(0.0) / packets.max(1.0);
        let control = known(traffic.control_bytes);
        let keepalive = (frames + acknowledged) * headers + frames * frame_header + control;
        self.keepalive_packets += (frames + acknowledged).min(packets);
        self.keepalive_bytes += keepalive.min(bytes);
        self.pings += known(traffic.ping);
        self.pongs += known(traffic.pong);
        self.control_bytes += control;
        self.messages += known(traffic.text) + known(traffic.binary);
        self.compressed += known(traffic.compressed_frames);
        self.payload_bytes += known(traffic.payload_bytes);
        self.blind |= traffic.frames.is_none() && traffic.packets > 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ceilings::fixture::listener;

    /// `n` connections for `seconds`, each pinged every second by the server: 2 bytes, and 6 back; headers of 52.
    fn pinged(seconds: u64, n: impl Fn(u64) -> u64) -> Rates {
        let mut rates = Rates::default();
        let (mut pings, mut messages) = (0, 0);
        for second in 0..seconds {
            let open = n(second);
            let mut listener = listener(1, 80, open);
            listener.sent = Traffic {
                frames: Some(pings),
                ping: Some(pings),
                pong: Some(0),
                control_bytes: Some(0),
                packets: 2 * pings + messages,
                packet_bytes: pings * (54 + 52) + messages * 152,
                stream_bytes: pings * 2 + messages * 100,
                ..Traffic::default()
            };
            listener.received = Traffic {
                frames: Some(pings),
                ping: Some(0),
                pong: Some(pings),
                control_bytes: Some(0),
                packets: pings,
                packet_bytes: pings * 58,
                stream_bytes: pings * 6,
                ..Traffic::default()
            };
            rates.observe(Duration::from_secs(second), [&listener].into_iter());
            pings += n(second + 1);
            messages += n(second + 1);
        }
        rates
    }

    #[test]
    fn keepalive_is_told_from_the_rest() {
        let rate = pinged(60, |_| 100).bits(38).expect("something is carried");
        // A second: a ping of 54, an acknowledgement of 52, a message of 152; 38 for each packet.
        assert!((rate.all.value - 8.0 * (54.0 + 52.0 + 152.0 + 3.0 * 38.0)).abs() < 1.0, "{rate:?}");
        assert!((rate.keepalive - 8.0 * (54.0 + 52.0 + 2.0 * 38.0)).abs() < 1.0, "{rate:?}");
        assert!((pinged(60, |_| 100).packets().expect("packets").all.value - 3.0).abs() < 0.01);
    }

    #[test]
    fn a_rising_count_does_not_lower_the_rate() {
        let steady = pinged(60, |_| 100).bits(0).expect("known").all;
        let rising = pinged(60, |second| 100 + 50 * second).bits(0).expect("known").all;
        assert!((rising.value / steady.value - 1.0).abs() < 0.03, "{rising:?} of {steady:?}");
        assert!(rising.least <= rising.value && rising.value <= rising.most);
    }

    #[test]
    fn frames_are_told_of_only_where_all_can_be_seen() {
        let mix = pinged(60, |_| 100).mix().expect("frames are seen");
        assert!((mix.ping_interval().expect("pings") - 1.0).abs() < 0.05, "{mix:?}");
        let mut rates = pinged(60, |_| 100);
        let mut encrypted = listener(1, 443, 100);
        encrypted.received = Traffic { packets: 7, packet_bytes: 700, ..Traffic::default() };
        rates.observe(Duration::from_secs(63), [&encrypted].into_iter());
        assert_eq!(rates.mix(), None);
    }

    #[test]
    fn nothing_carried_has_no_rate() {
        assert_eq!(pinged(60, |_| 0).bits(38), None);
        assert_eq!(pinged(1, |_| 5).bits(38), None, "one sample is none");
        assert!(pinged(1_000, |_| 5).samples.len() < 70);
    }
}
