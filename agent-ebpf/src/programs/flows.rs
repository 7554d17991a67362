//! The table of flows that can be skipped, and the look at a payload that fills it.

use core::ptr::addr_of_mut;

use agent_ebpf::flow::{self, Key, Start};
use agent_ebpf::handshake::STATUS_LINE;
use agent_ebpf::opening::{Opening, opening};
use agent_ebpf::request::EMPTY_LINE;
use agent_ebpf::tracker::Payload as _;
use aya_ebpf::bindings::__sk_buff;

use super::exchange::piece;
use super::maps;
use super::segment::{Bytes, KernelClock, Segment};

/// A plain global and not an array map: an access is a load, with no lookup before it.
#[unsafe(no_mangle)]
static mut FLOWS: [u64; flow::FLOWS] = [0; flow::FLOWS];

/// What a packet of an untracked socket is, as a subprogram can return it: of no interest,
pub(super) const NOTHING: u32 = 0;
/// or more of an HTTP message, or the beginning of one of these kinds.
const CONTINUED: u32 = 1;
const GET: u32 = 2;
const OTHER_REQUEST: u32 = 3;
pub(super) const UPGRADE: u32 = 4;
pub(super) const RESPONSE: u32 = 5;
pub(super) const CLIENT_HELLO: u32 = 6;
pub(super) const SERVER_HELLO: u32 = 7;
const ELSE: u32 = 8;
/// It is the first HTTP message of its flow.
const FIRST: u32 = 1 << 8;
/// It ends like a head, and what it is the end of was not seen.
const ENDS: u32 = 1 << 9;
/// A response's status lies above.
const STATUS: u32 = 16;

/// Which of them.
pub(super) const fn kind(seen: u32) -> u32 {
    seen & 0xff
}

/// The status of a response.
pub(super) const fn status(seen: u32) -> u32 {
    seen >> STATUS
}

/// Whether the packet may be a piece of a request: a piece of a head may begin like anything, but not the first one.
pub(super) const fn is_piece(seen: u32) -> bool {
    kind(seen) == GET || seen & FIRST == 0
}

/// What [`exchange::request`](super::exchange::request) is told of it.
pub(super) const fn piece(seen: u32) -> u32 {
    (if kind(seen) == CONTINUED { 0 } else { piece::OPENS })
        | (if kind(seen) == GET { piece::BEGINS } else { 0 })
        | (if seen & FIRST != 0 { piece::FIRST } else { 0 })
        | (if seen & ENDS != 0 { piece::ENDS } else { 0 })
}

/// A packet's flow and its word in the table.
pub(super) struct Flow {
    key: Key,
    word: u64,
}

impl Flow {
    #[inline(always)]
    pub(super) fn of<const IN: bool>(skb: *const __sk_buff, segment: &Segment) -> Flow {
        let (source, destination) = segment.addresses;
        // SAFETY: the context.
        let hash = unsafe { (*skb).hash };
        let key = Key::new(maps::flow_key(), segment.ports, (source, destination), hash, IN);
        // SAFETY: a word of the table, read whole.
        Flow { key, word: unsafe { place(key.index).read_volatile() } }
    }

    /// Nothing of this packet can be of interest. Comes before anything that costs a call.
    #[inline(always)]
    pub(super) fn is_settled(&self) -> bool {
        self.key.is_settled(self.word)
    }

    /// Looks at a packet of an untracked socket, and notes what that says of its flow.
    #[inline(never)]
    pub(super) fn inspect(&self, skb: *const __sk_buff, segment: &Segment) -> u32 {
        let (key, word) = (self.key, self.word);
        if segment.syn {
            self.note(key.fresh());
            return NOTHING;
        }
        if segment.len == 0 {
            return NOTHING;
        }
        // Responses come from the server's port and requests go to it, at the server as at the client.
        let answers = maps::wanted(segment.source_port());
        let asks = maps::wanted(segment.destination_port());
        if !answers && !asks {
            self.note(key.unwanted());
            return NOTHING;
        }
        let whole = STATUS_LINE.len() as u32;
        let len = if segment.len < whole { segment.len } else { whole };
        let mut start = [0u8; 16];
        if !Bytes::<KernelClock>::of(skb, segment).load(0, &mut start, len) {
            return NOTHING;
        }
        let is_first = !key.is_http(word);
        let first = if is_first { FIRST } else { 0 };
        let found = opening(&start, len);
        // What a proxy puts before its client's bytes says nothing of them.
        let next = match found {
            Opening::Proxy => key.fresh(),
            Opening::Else | Opening::ServerHello | Opening::ClientHello => key.after(word, Start::Else),
            _ => key.after(word, Start::Http),
        };
        self.note(next);
        // Without named ports nobody says that a TLS connection is a WebSocket.
        let named = maps::ports_are_named();
        match found {
            // The end of a head may come before its beginning.
            Opening::Else if is_first && asks && ends_a_head(skb, segment) => CONTINUED | ENDS,
            Opening::Else if is_first => NOTHING,
            Opening::Else => CONTINUED,
            Opening::Get | Opening::Proxy if asks => GET | first,
            Opening::Upgrade if answers => UPGRADE | first,
            Opening::Response(status) if answers => RESPONSE | first | status << STATUS,
            Opening::ClientHello if named && asks => CLIENT_HELLO | first,
            Opening::ServerHello if named && answers => SERVER_HELLO | first,
            // It may still be a piece of a request.
            Opening::Request => OTHER_REQUEST | first,
            _ => ELSE | first,
        }
    }

    /// A message of HTTP has begun in this packet, behind what it opens with.
    #[inline(always)]
    pub(super) fn note_http(&self) {
        self.note(self.key.after(0, Start::Http));
    }

    #[inline(always)]
    fn note(&self, word: u64) {
        // SAFETY: a word of the table, written whole.
        unsafe { place(self.key.index).write_volatile(word) };
    }
}

/// Whether the last bytes of a payload are an empty line.
#[inline(always)]
fn ends_a_head(skb: *const __sk_buff, segment: &Segment) -> bool {
    let mut end = [0u8; 16];
    segment.len >= 4
        && Bytes::<KernelClock>::of(skb, segment).load(segment.len - 4, &mut end, 4)
        && u32::from_be_bytes([end[0], end[1], end[2], end[3]]) == EMPTY_LINE
}

/// A flow's key, which the hash of one packet is no part of: of this packet's flow, or of the one in the other direction.
#[inline(always)]
pub(super) fn key<const IN: bool>(segment: &Segment, reverse: bool) -> Key {
    let (source, destination) = segment.addresses;
    if reverse {
        Key::new(maps::flow_key(), segment.ports.rotate_left(16), (destination, source), 0, !IN)
    } else {
        Key::new(maps::flow_key(), segment.ports, (source, destination), 0, IN)
    }
}

/// Forgets what is known of a flow.
#[inline(always)]
pub(super) fn unsettle(key: Key) {
    // SAFETY: a word of the table, written whole.
    unsafe { place(key.index).write_volatile(0) };
}

#[inline(always)]
fn place(index: usize) -> *mut u64 {
    // SAFETY: takes an address only; the mask keeps it in bounds, where the verifier can see it.
    unsafe { addr_of_mut!(FLOWS[index & (flow::FLOWS - 1)]) }
}
