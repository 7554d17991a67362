//! What a ping, and what a message, puts on the wire: bytes and packets, both directions.
//!
//! | what | bytes | source |
//! |---|---|---|
//! | Ethernet, for each packet | 38 | IEEE 802.3: preamble 8, header 14, checksum 4, gap 12; payload of 46 at least |
//! | IP | 20, IPv6 40 | RFC 791, RFC 8200 |
//! | TCP | 20 + 12 | RFC 9293, and timestamps with their padding (RFC 7323), which Linux uses by default |
//! | TLS 1.3 record | 5 + 1 + 16 | RFC 8446 section 5.2: header, content type, AEAD tag |
//! | HTTP/2 DATA frame | 9 | RFC 9113 section 4.1 |
//! | WebSocket frame | 2, 4 or 10; masked 4 more | RFC 6455 section 5.2; what clients send is masked |
//!
//! A ping is answered by a pong, which acknowledges it on the way; nothing else travels that could acknowledge the pong, so that
//! takes a packet of its own. A message is acknowledged every second segment (RFC 9293 section 3.8.6.3), a last odd one by
//! itself. This is the dearest case: on a busy connection acknowledgements ride along with data, and several frames share a
//! packet.

use std::ops::Add;

/// What Ethernet adds to an IP packet.
pub const ETHERNET: u64 = 38;
/// Ethernet's shortest payload.
const ETHERNET_LEAST: u64 = 46;
/// Ethernet's longest payload, unless it is told otherwise.
const MTU: u64 = 1500;
/// A TCP header with timestamps.
const TCP: u64 = 32;
/// What TLS adds to a record, and its longest content.
const RECORD: u64 = 22;
const RECORD_MOST: u64 = 1 << 14;
/// What HTTP/2 adds to a DATA frame, and its longest content by default.
const DATA_FRAME: u64 = 9;
const DATA_FRAME_MOST: u64 = 1 << 14;
/// Frame header of a control frame, whose payload is at most [`CONTROL_MOST`] bytes.
pub const CONTROL_HEADER: u64 = 2;
/// What a masking key adds to a frame.
pub const MASK: u64 = 4;
/// Longest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_MOST: u64 = 125;

/// Packets and their bytes on the wire, framing included.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Carried {
    /// Packets.
    pub packets: f64,
    /// Bytes.
    pub bytes: f64,
}

/// What both directions carry.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Exchange {
    /// From the server.
    pub sent: Carried,
    /// From the client.
    pub received: Carried,
}

/// What lies between a WebSocket frame and the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Path {
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// TLS 1.3 around the stream.
    pub tls: bool,
    /// The WebSocket is a stream of an HTTP/2 connection (RFC 8441).
    pub http2: bool,
}

impl Path {
    /// A ping of the server with `payload` bytes, its pong, and the pong's acknowledgement.
    pub fn ping(self, payload: u64) -> Exchange {
        let ping = self.packet(self.stream_bytes(CONTROL_HEADER + payload));
        let pong = self.packet(self.stream_bytes(CONTROL_HEADER + MASK + payload));
        Exchange { sent: ping + self.packet(0), received: pong }
    }

    /// A message of the server with `payload` bytes, in one frame, and its acknowledgements.
    pub fn message(self, payload: u64) -> Exchange {
        let header = match payload {
            0..=125 => 2,
            126..=65_535 => 4,
            _ => 10,
        };
        let bytes = self.stream_bytes(payload.saturating_add(header));
        let segment = MTU - self.headers();
        let segments = bytes.div_ceil(segment);
        let last = self.packet(bytes - (segments - 1) * segment);
        let sent = self.packet(segment).times((segments - 1) as f64) + last;
        Exchange { sent, received: self.packet(0).times(segments.div_ceil(2) as f64) }
    }

    /// What `bytes` of WebSocket frames are in the TCP stream.
    fn stream_bytes(self, bytes: u64) -> u64 {
        let wrapped = |bytes: u64, used: bool, most: u64, header: u64| match used {
            true => bytes.saturating_add(bytes.div_ceil(most).saturating_mul(header)),
            false => bytes,
        };
        let framed = wrapped(bytes, self.http2, DATA_FRAME_MOST, DATA_FRAME);
        wrapped(framed, self.tls, RECORD_MOST, RECORD)
    }

    fn headers(self) -> u64 {
        TCP + if self.ipv6 { 40 } else { 20 }
    }

    /// A packet with `bytes` of the stream; none makes it a pure acknowledgement.
    fn packet(self, bytes: u64) -> Carried {
        let bytes = (self.headers() + bytes).max(ETHERNET_LEAST) + ETHERNET;
        Carried { packets: 1.0, bytes: bytes as f64 }
    }
}

impl Carried {
    /// The same so many times.
    pub fn times(self, times: f64) -> Self {
        Self { packets: self.packets * times, bytes: self.bytes * times }
    }
}

impl Add for Carried {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl Exchange {
    /// The same so many times.
    pub fn times(self, times: f64) -> Self {
        Self { sent: self.sent.times(times), received: self.received.times(times) }
    }
}

impl Add for Exchange {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { sent: self.sent + other.sent, received: self.received + other.received }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(packets: u64, bytes: u64) -> Carried {
        Carried { packets: packets as f64, bytes: bytes as f64 }
    }

    #[test]
    fn an_empty_ping_is_three_packets() {
        let ping = Path::default().ping(0);
        // 38 + 20 + 32: 90 for an acknowledgement, 92 for the ping, 96 for the masked pong.
        assert_eq!(ping.sent, carried(2, 92 + 90));
        assert_eq!(ping.received, carried(1, 96));
        let dearest = Path { ipv6: true, tls: true, http2: true }.ping(125);
        assert_eq!(dearest.sent, carried(2, 110 + 2 + 125 + 9 + 22 + 110));
        assert_eq!(dearest.received, carried(1, 110 + 6 + 125 + 9 + 22));
    }

    #[test]
    fn a_message_is_cut_into_segments_and_acknowledged_by_twos() {
        let small = Path::default().message(100);
        assert_eq!((small.sent, small.received), (carried(1, 90 + 102), carried(1, 90)));
        // 3 × 1,448 are 4,344 bytes of stream; 4 are the frame's header.
        let three = Path::default().message(4_340);
        assert_eq!((three.sent, three.received), (carried(3, 3 * 90 + 4_344), carried(2, 180)));
        let four = Path::default().message(4_341);
        assert_eq!((four.sent, four.received), (carried(4, 4 * 90 + 4_345), carried(2, 180)));
        let large = Path::default().message(65_536);
        assert_eq!(large.sent.bytes, 65_546.0 + large.sent.packets * 90.0);
    }

    #[test]
    fn a_size_that_no_message_has_does_not_overflow() {
        assert!(Path { ipv6: true, tls: true, http2: true }.message(u64::MAX).sent.bytes.is_finite());
    }
}
