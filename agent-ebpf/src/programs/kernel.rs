//! Reading kernel structures without CO-RE: rustc emits no field relocations, so the agent resolves each offset from
//! the running kernel's BTF and passes it as a read-only global. The verifier knows a frozen global's value and checks
//! every load against the structure's BTF: a wrong offset fails the load instead of reading garbage.

use core::ffi::c_void;

use agent_ebpf::abi::{Endpoints, SocketHeader, SocketMemory};
use agent_ebpf::reorder::before;
use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;

/// Offset of a member this kernel does not have.
const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        pub(super) static $name: Global<u32> = Global::new(0);
    )* };
}

offsets! {
    OFF_RMEM_ALLOC OFF_BACKLOG_LEN OFF_WMEM_ALLOC OFF_WMEM_QUEUED OFF_FORWARD_ALLOC OFF_OMEM_ALLOC OFF_RCVBUF
    OFF_SNDBUF OFF_DROPS OFF_FAMILY OFF_STATE OFF_SPORT OFF_DPORT OFF_DADDR OFF_RCV_SADDR OFF_V6_DADDR OFF_V6_RCV_SADDR
    OFF_NET OFF_NET_INUM OFF_RCV_WUP OFF_RCV_WND OFF_RCV_NXT OFF_COPIED_SEQ OFF_WRITE_SEQ OFF_SND_UNA OFF_TOTAL_RETRANS
    OFF_SOCKET_SK OFF_TGID OFF_PID OFF_REAL_CRED OFF_MM OFF_MAP_COUNT OFF_USER OFF_USER_UID OFF_EPOLL_WATCHES
}

const AF_INET: u16 = 2;

/// Reads a member.
///
/// # Safety
/// `base` is a trusted pointer to the structure `offset` belongs to, and `T` has the member's size.
#[inline(always)]
pub(super) unsafe fn member<T: Copy>(base: *const c_void, offset: &Global<u32>) -> T {
    // SAFETY: by contract; the verifier checks the access against the structure's BTF as well.
    unsafe { *base.cast::<u8>().add(offset.load() as usize).cast::<T>() }
}

/// The full TCP socket behind `sk`, or null for time-wait and request sockets.
///
/// # Safety
/// `sk` is a socket pointer the verifier accepts, null excluded.
#[inline(always)]
pub(super) unsafe fn tcp_sock(sk: *mut c_void) -> *const c_void {
    // SAFETY: by contract.
    unsafe { bpf_skc_to_tcp_sock(sk).cast_const().cast() }
}

/// Inode number of the socket's network namespace.
///
/// # Safety
/// `tcp` came from [`tcp_sock`] and is not null.
#[inline(always)]
pub(super) unsafe fn netns(tcp: *const c_void) -> u32 {
    // SAFETY: `skc_net` holds one pointer to a `struct net`.
    unsafe {
        let net: *const c_void = member(tcp, &OFF_NET);
        if net.is_null() { 0 } else { member(net, &OFF_NET_INUM) }
    }
}

/// What TCP expects from the peer.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    /// The next byte in order.
    pub(super) rcv_nxt: u32,
    /// End of the window offered to the peer.
    window_end: u32,
    /// End of the largest one that its receive buffer allows. A window closes in an instant where memory is short, and
    /// opens again before a segment gets here that was sent into the old one, or before a segment that is here is taken
    /// from the backlog.
    largest_end: u32,
    /// The oldest byte that is not acknowledged yet, and the end of what the application has written. Not `snd_nxt`, which
    /// TCP moves only after it has handed a segment down: on loopback its acknowledgement may be here by then.
    sent: (u32, u32),
}

impl Expected {
    /// Whether TCP will refuse a segment out of order: it begins beyond any window (`tcp_sequence` in
    /// net/ipv4/tcp_input.c), or acknowledges what was never sent or was acknowledged longer ago than the largest window
    /// (RFC 7323 section 2.2) allows for (`tcp_ack`).
    #[inline(always)]
    pub(super) const fn refuses(&self, seq: u32, ack: u32) -> bool {
        const LARGEST_WINDOW: u32 = 1 << 30;
        let (una, written) = self.sent;
        let is_beyond = before(self.window_end, seq) && before(self.largest_end, seq);
        is_beyond || before(written, ack) || before(ack, una.wrapping_sub(LARGEST_WINDOW))
    }
}

/// What TCP expects; `None` for sockets that are none.
///
/// # Safety
/// `sk` is a socket pointer the verifier accepts, null excluded.
#[inline(always)]
pub(super) unsafe fn expected(sk: *mut c_void) -> Option<Expected> {
    // SAFETY: by contract; the pointer is checked before use.
    unsafe {
        let tcp = tcp_sock(sk);
        if tcp.is_null() {
            return None;
        }
        let (rcv_wup, rcv_wnd): (u32, u32) = (member(tcp, &OFF_RCV_WUP), member(tcp, &OFF_RCV_WND));
        let (rcv_nxt, rcvbuf): (u32, u32) = (member(tcp, &OFF_RCV_NXT), member(tcp, &OFF_RCVBUF));
        Some(Expected {
            rcv_nxt,
            largest_end: rcv_nxt.wrapping_add(rcvbuf),
            window_end: rcv_wup.wrapping_add(rcv_wnd),
            sent: (member(tcp, &OFF_SND_UNA), member(tcp, &OFF_WRITE_SEQ)),
        })
    }
}

/// Addresses, ports, state and namespace.
///
/// # Safety
/// As for [`netns`].
#[inline(always)]
pub(super) unsafe fn endpoints(tcp: *const c_void) -> Endpoints {
    // SAFETY: `sock_common` is the first member of every socket, so its offsets hold from `tcp`.
    unsafe {
        let family: u16 = member(tcp, &OFF_FAMILY);
        let (local, remote) = if family == AF_INET {
            let local: u32 = member(tcp, &OFF_RCV_SADDR);
            let remote: u32 = member(tcp, &OFF_DADDR);
            ([u64::from(local), 0], [u64::from(remote), 0])
        } else {
            (pair(tcp, &OFF_V6_RCV_SADDR), pair(tcp, &OFF_V6_DADDR))
        };
        let state: u8 = member(tcp, &OFF_STATE);
        // Not `skc_num`, which is already cleared when a socket is destroyed.
        let sport: u16 = member(tcp, &OFF_SPORT);
        let dport: u16 = member(tcp, &OFF_DPORT);
        Endpoints {
            local: bytes(local),
            remote: bytes(remote),
            local_port: u16::from_be(sport),
            remote_port: u16::from_be(dport),
            family,
            state: u16::from(state),
            netns: netns(tcp),
            reserved: 0,
        }
    }
}

/// An IPv6 address as two words: the verifier wants loads no wider than 8 bytes.
#[inline(always)]
unsafe fn pair(base: *const c_void, offset: &Global<u32>) -> [u64; 2] {
    // SAFETY: a `struct in6_addr` is 16 bytes; its declared members are 4-byte words, read as such.
    unsafe {
        let at = base.cast::<u8>().add(offset.load() as usize).cast::<u32>();
        let low = |a: u32, b: u32| u64::from(a) | u64::from(b) << 32;
        [low(*at, *at.add(1)), low(*at.add(2), *at.add(3))]
    }
}

#[inline(always)]
fn bytes(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: any bits are valid bytes; both are 16 bytes long.
    unsafe { core::mem::transmute(words) }
}

/// The word of an address by which packets are told apart: all of an IPv4 address, the last word of an IPv6 one, which of a
/// v4-mapped one is the IPv4 address.
#[inline(always)]
pub(super) fn last_word(address: &[u8; 16], family: u16) -> u32 {
    let at = if family == AF_INET { 0 } else { 12 };
    u32::from_ne_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]])
}

/// The part of a record that comes from the socket.
///
/// # Safety
/// As for [`netns`].
#[inline(always)]
pub(super) unsafe fn header(tcp: *const c_void, kind: u64, time_ns: u64) -> SocketHeader {
    // SAFETY: by contract.
    unsafe {
        SocketHeader {
            kind,
            time_ns,
            endpoints: endpoints(tcp),
            memory: memory(tcp),
            retransmitted: retransmitted(tcp),
            rcv_nxt: member(tcp, &OFF_RCV_NXT),
        }
    }
}

/// Segments the socket sent again in its life.
///
/// # Safety
/// As for [`netns`].
#[inline(always)]
pub(super) unsafe fn retransmitted(tcp: *const c_void) -> u32 {
    // SAFETY: by contract.
    unsafe { member(tcp, &OFF_TOTAL_RETRANS) }
}

/// Memory and queues, the set of `sk_get_meminfo`.
///
/// # Safety
/// As for [`netns`].
#[inline(always)]
pub(super) unsafe fn memory(tcp: *const c_void) -> SocketMemory {
    // SAFETY: each offset is that member's in this kernel; `sock` is the first member of `tcp_sock`.
    unsafe {
        let rcv_nxt: u32 = member(tcp, &OFF_RCV_NXT);
        let copied_seq: u32 = member(tcp, &OFF_COPIED_SEQ);
        let write_seq: u32 = member(tcp, &OFF_WRITE_SEQ);
        let snd_una: u32 = member(tcp, &OFF_SND_UNA);
        // The counter starts at 1 for the socket itself (sk_alloc).
        let wmem_alloc: i32 = member(tcp, &OFF_WMEM_ALLOC);
        SocketMemory {
            rmem_alloc: member(tcp, &OFF_RMEM_ALLOC),
            rcvbuf: member(tcp, &OFF_RCVBUF),
            wmem_alloc: wmem_alloc - 1,
            sndbuf: member(tcp, &OFF_SNDBUF),
            forward_alloc: member(tcp, &OFF_FORWARD_ALLOC),
            wmem_queued: member(tcp, &OFF_WMEM_QUEUED),
            omem_alloc: member(tcp, &OFF_OMEM_ALLOC),
            backlog: member(tcp, &OFF_BACKLOG_LEN),
            drops: if OFF_DROPS.load() == ABSENT { -1 } else { member(tcp, &OFF_DROPS) },
            receive_queue: rcv_nxt.wrapping_sub(copied_seq),
            send_queue: write_seq.wrapping_sub(snd_una),
            reserved: 0,
        }
    }
}
