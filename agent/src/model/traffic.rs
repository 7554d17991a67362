//! Counters to documents: of one direction, of a connection's keepalive, of a listener.

use std::collections::BTreeMap;

use agent_ebpf::abi::{
    self, Counters, DirectionTotals, ListenerKey, ListenerTotals, RTT_BUCKETS, frame_slot, rtt_bound_ns,
};
use agent_ebpf::frame;

use super::convert::role;
use crate::document::{Bucket, Listener, Ping, Pinger, Role, Stalls, Traffic};

/// What a direction carried; `visible` where its frames can be seen.
pub(super) fn traffic(counters: &Counters, visible: bool) -> Traffic {
    let known = |count: u64| visible.then_some(count);
    let frames = |opcode: u8| known(counters.frames[frame_slot(opcode)]);
    Traffic {
        frames: known(counters.frames.iter().sum()),
        text: frames(frame::TEXT),
        binary: frames(frame::BINARY),
        continuation: frames(frame::CONTINUATION),
        ping: frames(frame::PING),
        pong: frames(frame::PONG),
        close: frames(frame::CLOSE),
        payload_bytes: known(counters.payload_bytes),
        control_bytes: known(counters.control_bytes),
        header_bytes: known(counters.header_bytes),
        compressed_frames: known(counters.compressed_frames),
        stream_bytes: counters.payload_bytes
            + counters.control_bytes
            + counters.header_bytes
            + counters.unparsed_bytes,
        packets: counters.packets,
        packet_bytes: counters.packet_bytes,
    }
}

/// A connection's keepalive; `blind` where frames of a direction are missing, so that nobody can say what was not answered.
pub(super) fn ping(connection: &abi::Connection, blind: bool) -> Ping {
    let (received, sent) = (&connection.received, &connection.sent);
    // Both sides may ping; the one that did so last is the one that keeps the connection alive.
    let (pinger, answerer) =
        if sent.last_ping_ns >= received.last_ping_ns { (sent, received) } else { (received, sent) };
    let missed = |pings: &abi::Direction, pongs: &abi::Direction| {
        u64::from(pings.pings_missed).saturating_sub(u64::from(pongs.pongs_late))
    };
    let seconds = |nanoseconds: u64| (nanoseconds != 0).then(|| nanoseconds as f64 / 1e9);
    let (here, there) = match role(connection.role) {
        Role::Server => (Pinger::Server, Pinger::Client),
        Role::Client => (Pinger::Client, Pinger::Server),
    };
    Ping {
        interval_seconds: seconds(pinger.ping_interval_ns),
        rtt_seconds: seconds(answerer.rtt_ns),
        missed: (!blind).then(|| missed(sent, received) + missed(received, sent)),
        unsolicited: (!blind)
            .then(|| u64::from(received.pongs_unsolicited) + u64::from(sent.pongs_unsolicited)),
        sent_by: match (sent.last_ping_ns != 0, received.last_ping_ns != 0) {
            (true, true) => Some(Pinger::Both),
            (true, false) => Some(here),
            (false, true) => Some(there),
            (false, false) => None,
        },
    }
}

/// A listener's sums as a document. `refused` are its refused upgrades by status.
pub fn listener(key: &ListenerKey, totals: &ListenerTotals, refused: &BTreeMap<u32, u64>) -> Listener {
    let direction = |totals: &DirectionTotals| {
        let counters = &totals.counters;
        // Bytes went by, and not one of them was part of a frame: there was nothing to be seen.
        traffic(counters, counters.header_bytes > 0 || counters.unparsed_bytes == 0)
    };
    Listener {
        port: key.port,
        role: role(key.role),
        netns: key.netns,
        connections: totals.connections(),
        presumed: 0,
        opened: totals.opened,
        adopted: totals.adopted,
        closed: totals.closed,
        received: direction(&totals.received),
        sent: direction(&totals.sent),
        unparsed_bytes: totals.received.counters.unparsed_bytes + totals.sent.counters.unparsed_bytes,
        refused: refused.iter().map(|(status, count)| (status.to_string(), *count)).collect(),
        // A pong that comes in answers a ping that went out, and the other way round.
        ping_rtt: histogram(&totals.received.rtt),
        pong_delay: histogram(&totals.sent.rtt),
        stalls: Stalls {
            retransmitted_segments: Some(totals.retransmitted),
            count: totals.stalls,
            seconds: totals.stalled_ns as f64 / 1e9,
        },
    }
}

fn histogram(counts: &[u64; RTT_BUCKETS]) -> Vec<Bucket> {
    let filled = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let mut buckets: Vec<_> = filled.map(|(index, count)| (rtt_bound_ns(index), *count)).collect();
    // The kernel side keeps them in an order of its own; what has no bound comes last.
    buckets.sort_by_key(|(bound, _)| bound.unwrap_or(u64::MAX));
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    buckets.into_iter().map(|(bound, count)| Bucket { below_seconds: bound.map(seconds), count }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_null_and_not_zero() {
        let counters = Counters { unparsed_bytes: 500, packets: 3, packet_bytes: 900, ..Counters::default() };
        let hidden = traffic(&counters, false);
        assert_eq!((hidden.frames, hidden.payload_bytes, hidden.ping), (None, None, None));
        assert_eq!((hidden.stream_bytes, hidden.packets, hidden.packet_bytes), (500, 3, 900));
        let mut totals = ListenerTotals::default();
        totals.received.counters = counters;
        let listener = listener(&ListenerKey::default(), &totals, &BTreeMap::from([(403, 2)]));
        assert_eq!((listener.received.frames, listener.sent.frames), (None, Some(0)));
        assert_eq!(listener.refused["403"], 2);
    }

    #[test]
    fn a_late_pong_is_not_a_missed_one() {
        let mut connection = abi::Connection { role: 1, ..abi::Connection::default() };
        connection.sent.last_ping_ns = 5;
        connection.sent.pings_missed = 3;
        connection.received.pongs_late = 1;
        connection.received.pongs_unsolicited = 7;
        assert_eq!(ping(&connection, true).missed, None, "who cannot see pongs misses none");
        let ping = ping(&connection, false);
        assert_eq!((ping.missed, ping.unsolicited, ping.sent_by), (Some(2), Some(7), Some(Pinger::Server)));
    }
}
