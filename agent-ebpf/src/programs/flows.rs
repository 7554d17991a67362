//! The table of flows that can be skipped, and the look at a payload that fills it.

use core::ptr::addr_of_mut;

use agent_ebpf::flow::{self, Key, Start};
use agent_ebpf::handshake::{Beginning, STATUS_LINE, beginning};
use agent_ebpf::tracker::Payload as _;
use aya_ebpf::bindings::__sk_buff;

use super::maps;
use super::segment::{Bytes, Segment};

/// A plain global and not an array map: an access is a load, with no lookup before it.
#[unsafe(no_mangle)]
static mut FLOWS: [u64; flow::FLOWS] = [0; flow::FLOWS];

/// Set in a judgement where the payload may begin an upgrade; the table's own words leave this bit clear.
const SUSPECT: u64 = 1 << 31;

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

    /// Whether this packet of an untracked socket begins like an upgrade, or like a piece of one.
    #[inline(always)]
    pub(super) fn suspect(&self, skb: *const __sk_buff, segment: &Segment) -> bool {
        let judgement = if segment.syn {
            self.key.fresh()
        } else if segment.len > 0 {
            judge(skb, segment, self.key, self.word)
        } else {
            return false;
        };
        // SAFETY: a word of the table, written whole.
        unsafe { place(self.key.index).write_volatile(judgement & !SUSPECT) };
        judgement & SUSPECT != 0
    }
}

/// Forgets what is known of the flow in the other direction: its connection is tracked from now on.
#[inline(always)]
pub(super) fn unsettle_reverse<const IN: bool>(segment: &Segment) {
    let (source, destination) = segment.addresses;
    let reverse = Key::new(segment.ports.rotate_left(16), destination, source, 0, !IN);
    // SAFETY: a word of the table, written whole.
    unsafe { place(reverse.index).write_volatile(0) };
}

#[inline(always)]
fn place(index: usize) -> *mut u64 {
    // SAFETY: takes an address only; the mask keeps it in bounds, where the verifier can see it.
    unsafe { addr_of_mut!(FLOWS[index & (flow::FLOWS - 1)]) }
}

/// Looks at the payload; returns the flow's next word, with [`SUSPECT`] where an upgrade may begin.
#[inline(always)]
fn judge(skb: *const __sk_buff, segment: &Segment, key: Key, word: u64) -> u64 {
    // A 101 comes from the server's port, at the server (egress) as at the client (ingress).
    if !maps::wanted(segment.source_port()) {
        return key.unwanted();
    }
    let whole = STATUS_LINE.len() as u32;
    let wanted = if segment.len < whole { segment.len } else { whole };
    let mut start = [0u8; 16];
    if !(Bytes { skb, base: segment.offset }).load(0, &mut start, wanted) {
        return word;
    }
    match beginning(&start, wanted) {
        Beginning::Upgrade => key.after(word, Start::Response) | SUSPECT,
        Beginning::Response => key.after(word, Start::Response),
        Beginning::Else => key.after(word, Start::Else),
    }
}
