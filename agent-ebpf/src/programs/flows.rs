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

/// Whether a packet of an untracked socket begins like an upgrade, or like a piece of one.
#[inline(always)]
pub(super) fn suspect(skb: *mut __sk_buff, segment: &Segment) -> bool {
    // SAFETY: the context, and a word of the table, which is read and written whole; the index is in bounds.
    unsafe {
        let (source, destination) = segment.addresses;
        let key = Key::new(segment.ports, source, destination, (*skb).hash);
        let place = addr_of_mut!(FLOWS[key.index & (flow::FLOWS - 1)]);
        let word = place.read_volatile();
        if segment.syn {
            place.write_volatile(key.fresh());
            return false;
        }
        if key.is_settled(word) || segment.len == 0 {
            return false;
        }
        let judgement = judge(skb, segment, key, word);
        place.write_volatile(judgement & !SUSPECT);
        judgement & SUSPECT != 0
    }
}

/// Looks at the payload; returns the flow's next word, with [`SUSPECT`] where an upgrade may begin.
#[inline(always)]
fn judge(skb: *mut __sk_buff, segment: &Segment, key: Key, word: u64) -> u64 {
    // A 101 comes from the server's port, at the server (egress) as at the client (ingress).
    if !maps::wanted(segment.source_port()) {
        return key.unwanted();
    }
    let whole = STATUS_LINE.len() as u32;
    let wanted = if segment.len < whole { segment.len } else { whole };
    let mut start = [0u8; 16];
    if !(Bytes {
        skb,
        base: segment.offset,
    })
    .load(0, &mut start, wanted)
    {
        return word;
    }
    match beginning(&start, wanted) {
        Beginning::Upgrade => key.after(word, Start::Response) | SUSPECT,
        Beginning::Response => key.after(word, Start::Response),
        Beginning::Else => key.after(word, Start::Else),
    }
}
