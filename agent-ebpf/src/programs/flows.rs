//! The table of flows that can be skipped, and the look at a payload that fills it.

use core::ptr::addr_of_mut;

use agent_ebpf::flow::{self, Key, Start};
use agent_ebpf::handshake::STATUS_LINE;
use agent_ebpf::opening::{Opening, opening};
use agent_ebpf::tracker::Payload as _;
use aya_ebpf::bindings::__sk_buff;

use super::maps;
use super::segment::{Bytes, KernelClock, Segment};

/// A plain global and not an array map: an access is a load, with no lookup before it.
#[unsafe(no_mangle)]
static mut FLOWS: [u64; flow::FLOWS] = [0; flow::FLOWS];

/// What a packet of an untracked socket is.
pub(super) enum Look {
    /// Of no interest.
    Nothing,
    /// In the middle of an HTTP message.
    Continued,
    /// The beginning of something, and whether it is the first HTTP message of its flow.
    Opening(Opening, bool),
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
        let key = Key::new(segment.ports, source, destination, unsafe { (*skb).hash }, IN);
        // SAFETY: a word of the table, read whole.
        Flow { key, word: unsafe { place(key.index).read_volatile() } }
    }

    /// Nothing of this packet can be of interest. Comes before anything that costs a call.
    #[inline(always)]
    pub(super) fn is_settled(&self) -> bool {
        self.key.is_settled(self.word)
    }

    /// Looks at a packet of an untracked socket, and notes what that says of its flow.
    #[inline(always)]
    pub(super) fn look(&self, skb: *const __sk_buff, segment: &Segment) -> Look {
        let (key, word) = (self.key, self.word);
        if segment.syn {
            self.note(key.fresh());
            return Look::Nothing;
        }
        if segment.len == 0 {
            return Look::Nothing;
        }
        // Responses come from the server's port and requests go to it, at the server as at the client.
        let answers = maps::wanted(segment.source_port());
        if !answers && !maps::wanted(segment.destination_port()) {
            self.note(key.unwanted());
            return Look::Nothing;
        }
        let whole = STATUS_LINE.len() as u32;
        let len = if segment.len < whole { segment.len } else { whole };
        let mut start = [0u8; 16];
        if !Bytes::<KernelClock>::of(skb, segment).load(0, &mut start, len) {
            return Look::Nothing;
        }
        let first = !key.is_http(word);
        let found = opening(&start, len);
        match found {
            Opening::Else => {
                self.note(key.after(word, Start::Else));
                if first { Look::Nothing } else { Look::Continued }
            }
            // Without named ports nobody says that a TLS connection is a WebSocket.
            Opening::ServerHello if !maps::ports_are_named() || !answers => {
                self.note(key.after(word, Start::Else));
                Look::Nothing
            }
            Opening::ServerHello => Look::Opening(found, first),
            _ => {
                self.note(key.after(word, Start::Http));
                Look::Opening(found, first)
            }
        }
    }

    #[inline(always)]
    fn note(&self, word: u64) {
        // SAFETY: a word of the table, written whole.
        unsafe { place(self.key.index).write_volatile(word) };
    }
}

/// A flow's key, which the hash of one packet is no part of: of this packet's flow, or of the one in the other direction.
#[inline(always)]
pub(super) fn key<const IN: bool>(segment: &Segment, reverse: bool) -> Key {
    let (source, destination) = segment.addresses;
    if reverse {
        Key::new(segment.ports.rotate_left(16), destination, source, 0, !IN)
    } else {
        Key::new(segment.ports, source, destination, 0, IN)
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
