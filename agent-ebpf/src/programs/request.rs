//! Reads a request's head as far as it has come: does it ask for a WebSocket, and where does it end?

use core::ffi::c_void;
use core::ptr::addr_of_mut;

use agent_ebpf::abi::{Exchange, UpgradeRequest};
use agent_ebpf::request::{EMPTY_LINE, HeadSearch, LONGEST, STRETCH, STRETCHES, may_ask, stretch};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes};

/// Bytes of one look beyond what is kept, and by how many two looks overlap: as many as a field's name that is looked for has.
const LOOK: u32 = STRETCH as u32;
const OVERLAP: u32 = 16;

/// Looks at a segment of `len` bytes at `offset` in the packet, which was just appended, and at what came before it; completes the
/// request's state. A global function, see `global`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn headroom_examine(
    skb: *mut __sk_buff,
    exchange: *mut Exchange,
    offset: u32,
    len: u32,
    seq: u32,
) -> u32 {
    // Which it cannot know of memory that it is given.
    if exchange.is_null() || len == 0 {
        return 0;
    }
    // SAFETY: a map value that the caller has claimed; the callbacks' contexts outlive the calls.
    unsafe {
        if (*exchange).is_late != 0 {
            late(skb, exchange, (offset, len), seq);
            return 0;
        }
        let kept = u32::from((*exchange).opened.request_len);
        let total = (*exchange).next_seq.wrapping_sub((*exchange).request_state.start_seq);
        let tail = tail(skb, offset, len, (*exchange).tail);
        (*exchange).tail = tail;
        let mut flags = (*exchange).request_state.flags;
        if flags & UpgradeRequest::ENDED != 0 {
            return 0;
        }
        if total > LONGEST {
            // Whatever it is, it is not read any further; one that asks goes on without an end.
            if flags & UpgradeRequest::ASKS == 0 {
                (*exchange).request_state.flags = flags | UpgradeRequest::ENDED;
            }
            return 0;
        }
        let mut words = Words { exchange, len: kept, found: 0 };
        if flags & UpgradeRequest::ASKS == 0 {
            bpf_loop(STRETCHES, look_at_words as *mut c_void, (&raw mut words).cast(), 0);
        }
        let whole = total == kept;
        // The end is at the end of a segment as a rule; where it is not, frames or another request stand behind it.
        let mut end = if tail == EMPTY_LINE { total } else { 0 };
        if words.found != 0 || (whole && (end == 0 || flags & UpgradeRequest::ASKS != 0)) {
            let mut bytes = ReadBytes { exchange, len: kept, search: HeadSearch::default() };
            bpf_loop(STRETCHES, look_at_bytes as *mut c_void, (&raw mut bytes).cast(), 0);
            if bytes.search.asks() {
                flags |= UpgradeRequest::ASKS;
            }
            if whole || bytes.search.end() != 0 {
                end = bytes.search.end();
            }
        }
        if !whole && flags & UpgradeRequest::ASKS == 0 {
            let before = len.saturating_sub(total - kept);
            flags |= search(skb, (offset + before, len - before));
        }
        if end != 0 {
            flags |= UpgradeRequest::ENDED;
            (*exchange).request_state.frames_seq = (*exchange).request_state.start_seq.wrapping_add(end);
        }
        (*exchange).request_state.flags = flags;
    }
    0
}

/// A piece beyond a hole: it is not kept, but may end the head, and may be what asks.
#[inline(always)]
unsafe fn late(skb: *mut __sk_buff, exchange: *mut Exchange, (offset, len): (u32, u32), seq: u32) {
    // SAFETY: as for `headroom_examine`.
    unsafe {
        let state = addr_of_mut!((*exchange).request_state);
        if tail(skb, offset, len, 0) == EMPTY_LINE {
            (*state).late_seq = seq.wrapping_add(len);
            (*state).flags |= UpgradeRequest::ENDED_LATE;
        }
        (*state).flags |= search(skb, (offset, len));
    }
}

/// Searches bytes that are not kept; returns the flag of a request that asks, or 0. Out of line, so that it is verified once.
#[inline(never)]
unsafe fn search(skb: *mut __sk_buff, (at, left): (u32, u32)) -> u32 {
    let mut beyond = Beyond { skb, at, left, found: 0 };
    // SAFETY: the callback's context outlives the call.
    unsafe { bpf_loop(left / (LOOK - OVERLAP) + 1, look_beyond as *mut c_void, (&raw mut beyond).cast(), 0) };
    if beyond.found != 0 { UpgradeRequest::ASKS } else { 0 }
}

/// The last four bytes so far, with those of a segment of `len` bytes at `offset` in the packet.
#[inline(always)]
unsafe fn tail(skb: *mut __sk_buff, offset: u32, len: u32, before: u32) -> u32 {
    let mut last = [0u8; 4];
    let new = if len < 4 { len } else { 4 };
    let at = offset + len - new;
    // SAFETY: the buffer has room for four bytes, and the length is 1 to 4.
    unsafe {
        let most = (core::ptr::read_volatile(&new).wrapping_sub(1) & 3) + 1;
        if bpf_skb_load_bytes(skb.cast(), at, last.as_mut_ptr().cast(), most) != 0 {
            return 0;
        }
    }
    let word = u32::from_be_bytes(last);
    match new {
        4 => word,
        new => before << (8 * new) | word >> (32 - 8 * new),
    }
}

/// A search through a kept head by the word.
struct Words {
    exchange: *const Exchange,
    len: u32,
    found: u64,
}

/// One stretch, as `bpf_loop` wants it: 0 goes on, 1 stops.
extern "C" fn look_at_words(index: u64, words: *mut Words) -> i64 {
    // SAFETY: `examine` passes a live value; the exchange is a map value.
    unsafe {
        let head = &(*(*words).exchange).request;
        let found = u64::from(may_ask(&stretch(head, index as u32)));
        (*words).found |= found;
        i64::from(found != 0 || (index as u32 + 1) * LOOK >= (*words).len)
    }
}

/// A search through a kept head by the byte.
struct ReadBytes {
    exchange: *const Exchange,
    len: u32,
    search: HeadSearch,
}

/// One stretch, likewise.
extern "C" fn look_at_bytes(index: u64, bytes: *mut ReadBytes) -> i64 {
    // SAFETY: as for `look_at_words`.
    unsafe {
        let (head, len) = (&(*(*bytes).exchange).request, (*bytes).len);
        i64::from(!(*bytes).search.step(head, len, index as u32))
    }
}

/// A search through what is not kept, by the word.
struct Beyond {
    skb: *const __sk_buff,
    /// Offset in the packet.
    at: u32,
    left: u32,
    found: u64,
}

/// One look, likewise. A head that is so long is taken to ask where a piece of the word stands in it: another read of it
/// byte by byte would cost more than a response that is counted as refused.
extern "C" fn look_beyond(_index: u64, beyond: *mut Beyond) -> i64 {
    // SAFETY: `examine` passes a live value; the buffer has room for a whole look, and the length is that or less.
    unsafe {
        let mut words = [0u64; STRETCH / 8];
        let len = if (*beyond).left < LOOK { (*beyond).left } else { LOOK };
        if len == 0 {
            return 1;
        }
        let most = (core::ptr::read_volatile(&len).wrapping_sub(1) & (LOOK - 1)) + 1;
        if bpf_skb_load_bytes((*beyond).skb.cast(), (*beyond).at, words.as_mut_ptr().cast(), most) != 0 {
            return 1;
        }
        (*beyond).found |= u64::from(may_ask(&words));
        if (*beyond).left <= LOOK || (*beyond).found != 0 {
            return 1;
        }
        (*beyond).at += LOOK - OVERLAP;
        (*beyond).left -= LOOK - OVERLAP;
        0
    }
}
