//! The TCP segment in a packet, as cgroup_skb shows it: data starts at the IP header in both directions.

use core::ffi::c_void;

use agent_ebpf::tracker::{Clock, Payload};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_skb_load_bytes};

const IPPROTO_TCP: u8 = 6;
const IPV6_HEADER: usize = 40;
/// A hop-by-hop header that holds a jumbo payload option alone (RFC 2675 section 2), as `ip6_xmit` puts one before what will
/// be cut into segments and is longer than IPv6's length field can say. No segment has it on the wire.
const JUMBO_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
const SYN: u8 = 2;
/// The shortest IPv4 header, and so the least that must be readable before anything is known.
const SHORTEST: usize = 20 + TCP_HEADER;

/// Where a segment's payload is.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    /// TCP sequence number of the first payload byte.
    pub(super) seq: u32,
    /// Acknowledgement number.
    pub(super) ack: u32,
    /// Offset of the payload in the packet: the length of the headers.
    pub(super) offset: u32,
    /// Length of the payload.
    pub(super) len: u32,
    /// Both ports as they stand in the header.
    pub(super) ports: u32,
    /// Source and destination address, IPv6 folded into 32 bits.
    pub(super) addresses: (u32, u32),
    /// The SYN flag is set.
    pub(super) syn: bool,
    /// Bytes of its headers that are not on the wire: [`JUMBO_HEADER`] or 0.
    pub(super) surplus: u32,
}

impl Segment {
    /// The sender's port, host byte order.
    #[inline(always)]
    pub(super) fn source_port(&self) -> u16 {
        u16::from_be(self.ports as u16)
    }

    /// The receiver's port, host byte order.
    #[inline(always)]
    pub(super) fn destination_port(&self) -> u16 {
        u16::from_be((self.ports >> 16) as u16)
    }

    /// Reads the headers out of the packet's linear part, where TCP keeps them on both paths (`tcp_v4_rcv` pulls
    /// them; egress builds them). `None` for anything but TCP.
    #[inline(always)]
    pub(super) fn of(skb: *const __sk_buff) -> Option<Segment> {
        // SAFETY: `skb` is the program's context; packet loads are guarded by `end`, which the verifier insists on.
        unsafe {
            let data = (*skb).data as usize;
            let end = (*skb).data_end as usize;
            if data + SHORTEST > end {
                return None;
            }
            let first = *(data as *const u8);
            let word = |at: usize| *((data + at) as *const u32);
            let (ip_len, protocol, addresses, surplus) = if first >> 4 == 4 {
                (usize::from(first & 15) * 4, *((data + 9) as *const u8), (word(12), word(16)), 0)
            } else {
                // The last word of an IPv6 address varies most among the peers of a host.
                if data + IPV6_HEADER + JUMBO_HEADER > end {
                    return None;
                }
                let (next, after) = (*((data + 6) as *const u8), *((data + IPV6_HEADER) as *const u8));
                // In units of 8 bytes beyond the first; 0 with `next` 0 (`IPPROTO_HOPOPTS`) is what is looked for.
                let length = *((data + IPV6_HEADER + 1) as *const u8);
                // Without a branch: the verifier would follow both to the end of everything.
                let is_jumbo = (u32::from(next) | u32::from(length) << 8).wrapping_sub(1) >> 31;
                let surplus = is_jumbo * JUMBO_HEADER as u32;
                let protocol = next | after & (is_jumbo as u8).wrapping_neg();
                (IPV6_HEADER + surplus as usize, protocol, (word(20), word(36)), surplus)
            };
            let tcp = data + ip_len;
            if protocol != IPPROTO_TCP || tcp + TCP_HEADER > end {
                return None;
            }
            let seq = u32::from_be(*((tcp + 4) as *const u32));
            let ack = u32::from_be(*((tcp + 8) as *const u32));
            let offset = ip_len as u32 + u32::from(*((tcp + 12) as *const u8) >> 4) * 4;
            let total = (*skb).len;
            let len = total.saturating_sub(offset);
            let ports = *(tcp as *const u32);
            let syn = *((tcp + 13) as *const u8) & SYN != 0;
            Some(Segment { seq, ack, offset, len, ports, addresses, syn, surplus })
        }
    }
}

/// The kernel's monotonic clock.
#[derive(Clone, Copy, Default)]
pub(super) struct KernelClock;

impl Clock for KernelClock {
    #[inline(always)]
    fn now_ns(self) -> u64 {
        // SAFETY: no arguments, no preconditions.
        unsafe { bpf_ktime_get_ns() }
    }
}

/// A segment's payload behind the tracker's interface.
pub(super) struct Bytes<C = KernelClock> {
    pub(super) skb: *const __sk_buff,
    /// Offset of the payload in the packet.
    base: u32,
    clock: C,
}

impl<C: Default> Bytes<C> {
    #[inline(always)]
    pub(super) fn of(skb: *const __sk_buff, segment: &Segment) -> Self {
        Self::at(skb, segment.offset)
    }

    /// The payload that begins at `base` of the packet.
    #[inline(always)]
    pub(super) fn at(skb: *const __sk_buff, base: u32) -> Self {
        Self { skb, base, clock: C::default() }
    }
}

/// A clock of a program's.
pub(super) trait ProgramClock: Clock + Default {
    /// It is the kernel's: what is rare goes through global functions (see `global`), which know no other.
    const IS_KERNELS: bool;
}

impl ProgramClock for KernelClock {
    const IS_KERNELS: bool = true;
}

impl<C> Bytes<C> {
    /// Copies `len` bytes (1 to `MOST`, a power of two) at `offset` of the payload to `to`.
    ///
    /// The verifier must see the bounds, which the compiler knows and would leave out: the volatile read hides the
    /// value's history from it. A mask and no comparison, because LLVM merges the two ends of a range into one comparison
    /// of a shifted copy, and verifiers before 6.18's do not relate that back (seen on 6.1 and 6.12: "invalid zero-sized
    /// read").
    ///
    /// # Safety
    /// `to` has room for `MOST` bytes.
    #[inline(always)]
    pub(super) unsafe fn copy<const MOST: u32>(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: reads a local; the helper writes at most `MOST` bytes, for which the caller vouches.
        unsafe {
            let len = (core::ptr::read_volatile(&len).wrapping_sub(1) & (MOST - 1)) + 1;
            bpf_skb_load_bytes(self.skb.cast(), self.base + offset, to.cast::<c_void>(), len) == 0
        }
    }
}

impl<C: Clock> Payload for Bytes<C> {
    #[inline(always)]
    fn load(&self, offset: u32, to: &mut [u8; 16], len: u32) -> bool {
        // SAFETY: `to` has room for 16 bytes.
        unsafe { self.copy::<16>(offset, to.as_mut_ptr(), len) }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }
}
