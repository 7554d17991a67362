//! TCP segments in IP packets: where they stand in their stream, and how they are cut anew.

use std::ops::Range;

const TCP: u8 = 6;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const FIN: u8 = 1;
const SYN: u8 = 2;
const PUSH: u8 = 8;

/// What tells the two directions of all connections of a wire apart: addresses are the same for all of them.
pub(crate) type Ports = (u16, u16);

/// Where things are in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) ports: Ports,
    /// Sequence number of the first payload byte.
    pub(crate) seq: u32,
    pub(crate) syn: bool,
    /// As it stands in the header, not scaled.
    pub(crate) window: u16,
    ip: usize,
    /// Where the payload begins.
    pub(crate) headers: usize,
    /// Where it ends.
    pub(crate) end: usize,
}

impl Segment {
    /// `None` for anything but TCP. Neither fragments nor IPv6 extension headers occur between two Linux hosts here.
    pub(crate) fn of(packet: &[u8]) -> Option<Segment> {
        let first = *packet.first()?;
        let (ip, protocol, end) = match first >> 4 {
            4 => (usize::from(first & 15) * 4, *packet.get(9)?, usize::from(be16(packet, 2)?)),
            6 => (IPV6_HEADER, *packet.get(6)?, IPV6_HEADER + usize::from(be16(packet, 4)?)),
            _ => return None,
        };
        if protocol != TCP || end > packet.len() || ip < IPV4_HEADER || ip + TCP_HEADER > end {
            return None;
        }
        let headers = ip + usize::from(packet[ip + 12] >> 4) * 4;
        (headers <= end).then_some(Segment {
            ports: (be16(packet, ip)?, be16(packet, ip + 2)?),
            seq: u32::from(be16(packet, ip + 4)?) << 16 | u32::from(be16(packet, ip + 6)?),
            syn: packet[ip + 13] & SYN != 0,
            window: be16(packet, ip + 14)?,
            ip,
            headers,
            end,
        })
    }

    /// Length of the payload.
    pub(crate) fn len(&self) -> usize {
        self.end - self.headers
    }

    /// A packet like `packet` that carries bytes `part` of its payload, with `before`, what the stream has before the
    /// payload, in front.
    pub(crate) fn cut(&self, packet: &[u8], part: Range<usize>, before: &[u8]) -> Vec<u8> {
        let mut cut = packet[..self.headers].to_vec();
        cut.extend(before);
        cut.extend(&packet[self.headers + part.start..self.headers + part.end]);
        let seq = self.seq.wrapping_add(part.start as u32).wrapping_sub(before.len() as u32);
        cut[self.ip + 4..self.ip + 8].copy_from_slice(&seq.to_be_bytes());
        if part.end < self.len() {
            cut[self.ip + 13] &= !(FIN | PUSH);
        }
        let length = cut.len();
        if packet[0] >> 4 == 4 {
            cut[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            cut[10..12].fill(0);
            let sum = checksum(&cut[..self.ip]);
            cut[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            cut[4..6].copy_from_slice(&((length - IPV6_HEADER) as u16).to_be_bytes());
        }
        let (ip, tcp) = cut.split_at_mut(self.ip);
        tcp[16..18].fill(0);
        let addresses = if ip[0] >> 4 == 4 { &ip[12..20] } else { &ip[8..40] };
        let sum = tcp_checksum(addresses, tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        cut
    }
}

fn be16(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]))
}

/// Checksum of a TCP segment whose own field is zero; `addresses` are source and destination.
pub(crate) fn tcp_checksum(addresses: &[u8], tcp: &[u8]) -> u16 {
    // IPv4's and IPv6's pseudo headers sum up to the same: what they differ in is zeros.
    let mut pseudo = addresses.to_vec();
    pseudo.extend((tcp.len() as u32).to_be_bytes());
    pseudo.extend([0, TCP]);
    pseudo.extend(tcp);
    checksum(&pseudo)
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
