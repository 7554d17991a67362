//! The kernel/user ABI: every type that crosses the boundary through a map, an iterator or the ring buffer.
//!
//! All of them are `repr(C)`, made of plain integers, without padding bytes, and 8-byte aligned, so that a byte copy
//! is a value on either side. Layout is asserted at compile time below.

mod connection;
mod counters;
mod record;
mod tally;

pub use connection::{Connection, Direction, Parse, Role, stage};
pub use counters::{
    Counters, DirectionTotals, FRAME_SLOTS, ListenerKey, ListenerTotals, RTT_BUCKETS, Stat, frame_slot,
    rtt_bound_ns,
};
pub use record::{
    Endpoints, Exchange, Opened, REQUEST_BYTES, REQUEST_WORDS, RESPONSE_BYTES, Refusal, SocketHeader,
    SocketMemory, Task, Unjudged, UpgradeRequest, event, grounds,
};
pub use tally::{SharedTotals, Tally};

/// Entries in the table of handshakes in progress, a power of two.
pub const EXCHANGE_SLOTS: usize = 1024;

/// Entries in the per-CPU array of listener totals. Slot 0 collects listeners beyond the last slot.
pub const LISTENER_SLOTS: usize = 512;
/// Slots below this are for the host's clients, those from here on for its servers.
pub const CLIENT_SLOTS: usize = LISTENER_SLOTS / 4;

/// Names of the programs, maps and read-only globals in the object, defined once for the programs, the loader and
/// the build.
pub mod names {
    /// cgroup_skb program on ingress.
    pub const INGRESS: &str = "headroom_ingress";
    /// cgroup_skb program on egress.
    pub const EGRESS: &str = "headroom_egress";
    /// cgroup_skb program that does nothing: the baseline of the packet benchmark.
    pub const EMPTY: &str = "headroom_empty";
    /// cgroup_skb program that is never attached: runs packets through the tracker on a state of the caller's, for tests.
    pub const REPLAY: &str = "headroom_replay";
    /// tp_btf program on `tcp_destroy_sock`.
    pub const DESTROY: &str = "headroom_destroy";
    /// tp_btf program on `tcp_retransmit_skb`.
    pub const RETRANSMIT: &str = "headroom_retransmit";
    /// iter/tcp program that reads tracked sockets.
    pub const SOCKETS: &str = "headroom_sockets";
    /// iter/tcp program that marks sockets older than the agent as candidates.
    pub const CANDIDATES: &str = "headroom_candidates";
    /// iter/task_file program.
    pub const OWNERS: &str = "headroom_owners";
    /// iter/task program that reads what processes and their users take of limits no file tells.
    pub const TASKS: &str = "headroom_tasks";

    /// Every program in the object.
    pub const PROGRAMS: &[&str] =
        &[INGRESS, EGRESS, EMPTY, REPLAY, DESTROY, RETRANSMIT, SOCKETS, CANDIDATES, OWNERS, TASKS];

    /// Socket storage: [`Connection`](super::Connection).
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// Hash [`ListenerKey`](super::ListenerKey) → slot.
    pub const LISTENERS: &str = "LISTENERS";
    /// Queue of servers' slots that the agent has taken back.
    pub const FREE_SERVER_SLOTS: &str = "FREE_SERVER_SLOTS";
    /// The same of clients' slots.
    pub const FREE_CLIENT_SLOTS: &str = "FREE_CLIENT_SLOTS";
    /// Per-CPU array slot → [`ListenerTotals`](super::ListenerTotals).
    pub const TOTALS: &str = "TOTALS";
    /// Hash port → 1; consulted when [`FILTER_PORTS`] is set.
    pub const PORTS: &str = "PORTS";
    /// Ring buffer of life-cycle events.
    pub const EVENTS: &str = "EVENTS";
    /// Per-CPU array [`Stat`](super::Stat) → count.
    pub const STATS: &str = "STATS";

    /// Socket storage: [`Candidate`](crate::candidate::Candidate).
    pub const ELDERS: &str = "ELDERS";
    /// Array of [`Exchange`](super::Exchange) by flow.
    pub const EXCHANGES: &str = "EXCHANGES";
    /// Socket storage: [`UpgradeRequest`](super::UpgradeRequest).
    pub const UPGRADE_REQUESTS: &str = "UPGRADE_REQUESTS";
    /// Hash [`Refusal`](super::Refusal) → count.
    pub const REFUSALS: &str = "REFUSALS";
    /// Array of [`Reorder`](crate::reorder::Reorder).
    pub const REORDER: &str = "REORDER";
    /// Array of what reorder buffers keep, in chunks.
    pub const POOL: &str = "POOL";
    /// Array of one [`Replay`](super::Replay).
    pub const REPLAYED: &str = "REPLAYED";

    /// Ring buffer of aya-log.
    pub const LOGS: &str = "AYA_LOGS";

    /// Every map the programs declare.
    pub const MAPS: &[&str] = &[
        CONNECTIONS,
        LISTENERS,
        FREE_SERVER_SLOTS,
        FREE_CLIENT_SLOTS,
        TOTALS,
        PORTS,
        EVENTS,
        STATS,
        ELDERS,
        EXCHANGES,
        UPGRADE_REQUESTS,
        REFUSALS,
        REORDER,
        POOL,
        REPLAYED,
        LOGS,
    ];

    /// Global: 1 when only ports in [`PORTS`] are tracked.
    pub const FILTER_PORTS: &str = "FILTER_PORTS";

    /// Global of aya-log: the level up to which the programs log; 0 removes the logging code at load time.
    pub const LOG_LEVEL: &str = "AYA_LOG_LEVEL";

    /// Global: a random number, so that nobody can choose addresses that share a place in a table with another's.
    pub const FLOW_KEY: &str = "FLOW_KEY";

    /// Globals that configure the programs.
    pub const GLOBALS: &[&str] = &[FILTER_PORTS, LOG_LEVEL, FLOW_KEY];

    /// Globals that hold a kernel structure's member offset: (global, structure, member path). A kernel without the member
    /// costs the programs that read it, except for those of [`OPTIONAL_OFFSETS`].
    pub const OFFSETS: &[(&str, &str, &str)] = &[
        ("OFF_RMEM_ALLOC", "sock", "sk_backlog.rmem_alloc"),
        ("OFF_BACKLOG_LEN", "sock", "sk_backlog.len"),
        ("OFF_WMEM_ALLOC", "sock", "sk_wmem_alloc"),
        ("OFF_WMEM_QUEUED", "sock", "sk_wmem_queued"),
        ("OFF_FORWARD_ALLOC", "sock", "sk_forward_alloc"),
        ("OFF_OMEM_ALLOC", "sock", "sk_omem_alloc"),
        ("OFF_RCVBUF", "sock", "sk_rcvbuf"),
        ("OFF_SNDBUF", "sock", "sk_sndbuf"),
        ("OFF_DROPS", "sock", "sk_drops"),
        ("OFF_FAMILY", "sock_common", "skc_family"),
        ("OFF_STATE", "sock_common", "skc_state"),
        ("OFF_SPORT", "inet_sock", "inet_sport"),
        ("OFF_DPORT", "sock_common", "skc_dport"),
        ("OFF_DADDR", "sock_common", "skc_daddr"),
        ("OFF_RCV_SADDR", "sock_common", "skc_rcv_saddr"),
        ("OFF_V6_DADDR", "sock_common", "skc_v6_daddr"),
        ("OFF_V6_RCV_SADDR", "sock_common", "skc_v6_rcv_saddr"),
        ("OFF_NET", "sock_common", "skc_net"),
        ("OFF_NET_INUM", "net", "ns.inum"),
        ("OFF_RCV_WUP", "tcp_sock", "rcv_wup"),
        ("OFF_RCV_WND", "tcp_sock", "rcv_wnd"),
        ("OFF_RCV_NXT", "tcp_sock", "rcv_nxt"),
        ("OFF_COPIED_SEQ", "tcp_sock", "copied_seq"),
        ("OFF_WRITE_SEQ", "tcp_sock", "write_seq"),
        ("OFF_SND_UNA", "tcp_sock", "snd_una"),
        ("OFF_TOTAL_RETRANS", "tcp_sock", "total_retrans"),
        ("OFF_SOCKET_SK", "socket", "sk"),
        ("OFF_TGID", "task_struct", "tgid"),
        ("OFF_PID", "task_struct", "pid"),
        ("OFF_REAL_CRED", "task_struct", "real_cred"),
        ("OFF_MM", "task_struct", "mm"),
        ("OFF_MAP_COUNT", "mm_struct", "map_count"),
        ("OFF_USER", "cred", "user"),
        ("OFF_USER_UID", "user_struct", "uid"),
        ("OFF_EPOLL_WATCHES", "user_struct", "epoll_watches.count"),
    ];

    /// Offsets that are `u32::MAX` where the kernel has no such member, which the programs look for themselves.
    pub const OPTIONAL_OFFSETS: &[&str] = &["OFF_DROPS"];

    /// Functions that the verifier looks at one by one, because they are exported.
    pub const FUNCTIONS: &[&str] = &[
        "headroom_examine",
        "headroom_rest_received",
        "headroom_rest_sent",
        "headroom_rest_nested",
        "headroom_settle",
    ];

    /// State that the programs keep for themselves, and [`SWITCH`]'s variable.
    pub const PRIVATE: &[&str] = &[
        "NEXT_SERVER_SLOT",
        "NEXT_CLIENT_SLOT",
        "FLOWS",
        "ELDERS_LEFT",
        "SWITCHED_ON",
        "FREE_CHUNKS",
        "FRESH_CHUNKS",
        "NEXT_CHUNK",
        "NEXT_SAMPLE",
    ];

    /// The section, and so the map, of the variable that has all programs work: 0 until all of them are attached.
    pub const SWITCH: &str = ".data.switch";
}

/// One packet's way through the tracker, for tests: the caller sets the state and the surroundings, runs the program on a
/// packet, and reads the state back.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replay {
    /// The connection.
    pub connection: Connection,
    /// Its listener's totals.
    pub totals: ListenerTotals,
    /// What the clock says.
    pub now_ns: u64,
    /// TCP's own edge (`rcv_nxt`).
    pub rcv_nxt: u32,
    /// 1 where the packet is received, 0 where it is sent.
    pub inbound: u32,
}

// A hole in one of these types would be uninitialised kernel memory on its way to user space, and the verifier would
// refuse it with a message about stack bytes; the sums say so at compile time instead.
const _: () = {
    assert!(size_of::<Counters>() == 8 * (FRAME_SLOTS + 7));
    assert!(size_of::<Direction>() == size_of::<Counters>() + 176);
    assert!(size_of::<Connection>() == 2 * size_of::<Direction>() + 48 + 32);
    assert!(size_of::<Endpoints>() == 48);
    assert!(size_of::<SocketMemory>() == 48);
    assert!(size_of::<SocketHeader>() == 24 + size_of::<Endpoints>() + size_of::<SocketMemory>());
    assert!(size_of::<Unjudged>() == 32);
    assert!(size_of::<Opened>() == 48 + size_of::<Endpoints>());
    assert!(size_of::<UpgradeRequest>() == 16);
    assert!(size_of::<Exchange>() == size_of::<Opened>() + RESPONSE_BYTES + 2 * REQUEST_BYTES + 40);
    assert!(size_of::<Refusal>() == 16);
    assert!(size_of::<Task>() == 24);
    assert!(size_of::<DirectionTotals>() == size_of::<Counters>() + 8 * RTT_BUCKETS);
    assert!(size_of::<ListenerTotals>() == 3 * size_of::<DirectionTotals>() + 7 * 8);
    assert!(size_of::<ListenerKey>() == 8);
    assert!(size_of::<Replay>() == size_of::<Connection>() + size_of::<ListenerTotals>() + 16);
};
