//! Events for tests and demonstrations: one process near its descriptor limit, deterministic to the byte.
//!
//! Also compiled into the integration tests and `examples/recording.rs`, so it depends on nothing but the documents.

use agent::document::{
    Advice, Body, Bucket, Ceiling, Connection, CostPart, Deflate, Degraded, Descriptors, Effect, Envelope,
    EventWriter, Evidence, Host, Kind, Level, LevelChanged, Listener, Losses, Memory, Parse, Part, Ping,
    Pinger, Process, ProcessMemory, Range, Role, SelfUsage, Stalls, Started, Tick, Traffic, Transport, Trend,
    Unit, Upgrade, Vanished,
};
use jiff::{Timestamp, ToSpan};

/// Connections that [`recording`] reports one by one.
pub const CONNECTIONS: u64 = 24;

/// Descriptors in use at tick 0, and how many more each tick.
const DESCRIPTORS: (u64, u64) = (18_252, 6);

/// Builds a stream event by event.
pub struct Recording {
    /// The events so far.
    pub envelopes: Vec<Envelope>,
    writer: EventWriter,
    now: Timestamp,
}

impl Recording {
    /// A stream that begins with `agent_started`.
    pub fn new() -> Self {
        let now = start();
        let mut recording = Self { envelopes: Vec::new(), writer: EventWriter::default(), now };
        recording.push(Body::AgentStarted(Started {
            host: host(),
            interval_seconds: 1.0,
            ports: Vec::new(),
            sample_connections: None,
            max_connection_events: None,
        }));
        recording
    }

    /// An upgrade.
    pub fn opened(&mut self, connection: Connection) -> &mut Self {
        self.push(Body::ConnectionOpened(connection))
    }

    /// A change.
    pub fn updated(&mut self, connection: Connection) -> &mut Self {
        self.push(Body::ConnectionUpdated(connection))
    }

    /// An end.
    pub fn closed(&mut self, connection: Connection) -> &mut Self {
        self.push(Body::ConnectionClosed(connection))
    }

    /// An end nobody saw.
    pub fn vanished(&mut self, id: &str) -> &mut Self {
        self.push(Body::ConnectionVanished(Vanished { id: id.into() }))
    }

    /// A ceiling that came nearer.
    pub fn level_changed(&mut self, change: LevelChanged) -> &mut Self {
        self.push(Body::LevelChanged(change))
    }

    /// A tick, a second after whatever came before.
    pub fn tick(&mut self, tick: Tick) -> &mut Self {
        self.now += 1.second();
        self.push(Body::Tick(tick))
    }

    fn push(&mut self, body: Body) -> &mut Self {
        self.envelopes.push(self.writer.envelope(self.now, body));
        self
    }
}

/// A start, [`CONNECTIONS`] upgrades and `ticks` ticks.
pub fn recording(ticks: u64) -> Vec<Envelope> {
    let mut recording = Recording::new();
    for id in 0..CONNECTIONS {
        recording.opened(connection(id));
    }
    for number in 0..ticks {
        recording.tick(tick(number));
    }
    recording.envelopes
}

/// `envelopes` as JSON lines.
pub fn lines(envelopes: &[Envelope]) -> String {
    envelopes.iter().map(|envelope| serde_json::to_string(envelope).expect("serializes") + "\n").collect()
}

/// The `id`-th connection.
pub fn connection(id: u64) -> Connection {
    let parse = match id {
        5 => Parse::Adopted,
        9 => Parse::Unsynced,
        11 => Parse::Encrypted,
        _ => Parse::Exact,
    };
    let seen = parse != Parse::Encrypted;
    let pings = 30 + id;
    let kernel = 4096 + 640 * ((id * 7) % CONNECTIONS);
    Connection {
        id: (4097 + id).to_string(),
        local: "127.0.0.1:8080".into(),
        remote: format!("127.0.0.1:{}", 40_000 + 2 * id),
        role: Role::Server,
        transport: Transport::Http1,
        pid: (id != 3).then_some(1234),
        fd: (id != 3).then_some(10 + id as u32),
        netns: 4_026_531_840,
        opened: (parse != Parse::Adopted).then(|| start() - (90 * (id as i64 + 1)).seconds()),
        parse,
        evidence: Some(Evidence::Handshake),
        unparsed_bytes: if parse == Parse::Adopted { 1500 } else { 0 },
        received: Some(traffic(1200 + 37 * id, 0, pings - 1, seen)),
        sent: Some(traffic(900 + 11 * id, pings, 0, seen)),
        ping: Ping {
            interval_seconds: seen.then_some(15.0),
            rtt_seconds: seen.then_some(short(0.000_4 + 0.000_9 * id as f64)),
            missed: seen.then_some(u64::from(id == 9)),
            unsolicited: seen.then_some(0),
            sent_by: seen.then_some(Pinger::Server),
        },
        memory: memory(kernel, id != 7),
        deflate: id.is_multiple_of(4).then_some(Deflate {
            server_max_window_bits: 15,
            client_max_window_bits: 15,
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            estimated_bytes: 302_080,
        }),
        upgrade: (parse == Parse::Exact).then(|| Upgrade {
            path: Some("/chat".into()),
            host: Some("example.org".into()),
            latency_seconds: Some(0.0015),
            tcp_handshake_seconds: Some(0.0004),
            ..Upgrade::default()
        }),
        stalls: (id != 7).then(stalls),
        close_code: None,
    }
}

/// The `number`-th tick of a host whose connections grow by six a second.
pub fn tick(number: u64) -> Tick {
    // At its limit a process opens no more.
    let open = (DESCRIPTORS.0 + DESCRIPTORS.1 * number).min(20_000);
    let connections = open - 32;
    // A wave with a period that does not divide the sample count, so that a picture shows its shape.
    let pings = 1000 * number + 150 * (1..=number).map(|n| (n * n) % 7).sum::<u64>();
    Tick {
        connections,
        presumed: 0,
        ceilings: ceilings(open, number),
        processes: vec![Process {
            pid: 1234,
            comm: "ws-server".into(),
            cgroup: Some("/system.slice/ws.service".into()),
            container: None,
            pod_uid: None,
            connections,
            presumed: 0,
            websockets: connections,
            descriptors: Descriptors {
                open: Some(open),
                soft_limit: Some(20_000),
                hard_limit: Some(524_288),
            },
            memory: ProcessMemory {
                resident_bytes: Some(610_000_000 + 33_000 * connections),
                per_connection_bytes: Some(32_500.0),
                kernel_per_connection_bytes: Some(4_812.5),
                compression_bytes: Some(302_080 * connections / 4),
            },
        }],
        listeners: vec![Listener {
            port: 8080,
            role: Role::Server,
            netns: 4_026_531_840,
            connections,
            presumed: 0,
            opened: connections + 57,
            adopted: 0,
            closed: 57,
            received: traffic(40 * pings, 0, pings, true),
            sent: traffic(31 * pings, pings + 3, 0, true),
            unparsed_bytes: 1500,
            refused: Default::default(),
            ping_rtt: vec![Bucket { below_seconds: Some(short(0.0021)), count: pings }],
            pong_delay: Vec::new(),
            stalls: stalls(),
        }],
        advice: vec![Advice {
            id: "raise-soft-nofile".into(),
            ceiling: Kind::Descriptors,
            action: "raise the soft descriptor limit of ws-server to 65,536".into(),
            effect: Effect { connections_max_before: 19_968, connections_max_after: 65_504 },
            evidence: "the soft limit is 20,000, the hard limit 524,288".into(),
        }],
        degraded: degraded(),
        agent: SelfUsage {
            lines_lost: 0,
            left_out: Default::default(),
            cpu_seconds: short(0.01 * number as f64),
            resident_bytes: 14_000_000,
            bpf_ns_per_packet: None,
            events_dropped: 3,
            losses: Some(Losses::default()),
            sweep_seconds: Some(0.021),
            sweep_age_seconds: Some(1.4),
        },
    }
}

fn ceilings(open: u64, number: u64) -> Vec<Ceiling> {
    let descriptors = Ceiling {
        kind: Kind::Descriptors,
        scope: "process:1234".into(),
        used: Some(open),
        limit: Some(20_000),
        unit: Unit::Descriptors,
        utilization: Some(short(open as f64 / 20_000.0)),
        level: Level::Near,
        connections: open - 32,
        cost_per_connection: Some(1.0),
        cost_range: None,
        cost_samples: None,
        parts: Vec::new(),
        connections_left: Some(20_000 - open),
        connections_left_range: None,
        connections_max: Some(19_968),
        seconds_left: Some(short((20_000 - open) as f64 / DESCRIPTORS.1 as f64)),
        seconds_left_range: Some(Range {
            least: short((20_000 - open) as f64 / (DESCRIPTORS.1 + 1) as f64),
            most: Some(short((20_000 - open) as f64 / (DESCRIPTORS.1 - 1) as f64)),
        }),
        trend: Trend::Growing,
        first: true,
        basis: "soft RLIMIT_NOFILE of /proc/1234/limits; one descriptor per TCP connection".into(),
    };
    let part = |part, cost| CostPart { part, cost, range: None, samples: open };
    let (used, limit, cost) = (31_200_000_000 + 40_000_000 * number, 67_400_000_000_u64, 39_400.0);
    let left = ((limit - used) as f64 / cost) as u64;
    let memory = Ceiling {
        kind: Kind::Memory,
        scope: "host".into(),
        used: Some(used),
        limit: Some(limit),
        unit: Unit::Bytes,
        utilization: Some(short(used as f64 / limit as f64)),
        level: Level::Ok,
        cost_per_connection: Some(cost),
        cost_range: Some(Range { least: 38_900.0, most: Some(40_100.0) }),
        cost_samples: Some(48),
        parts: vec![
            part(Part::KernelFixed, 3_784.0),
            part(Part::KernelBuffers, 1_016.0),
            part(Part::Process, 34_600.0),
        ],
        connections_left: Some(left),
        connections_left_range: None,
        connections_max: Some(left + open - 32),
        seconds_left: None,
        seconds_left_range: None,
        trend: Trend::Recovering,
        first: false,
        basis: "MemTotal - MemAvailable of MemTotal; cost: kernel memory measured per socket, plus the slope of the process's anonymous memory over its connections".into(),
        ..descriptors.clone()
    };
    let bandwidth = Ceiling {
        kind: Kind::Bandwidth,
        scope: "interface:eth0".into(),
        used: Some(48_000_000),
        limit: None,
        unit: Unit::BitsPerSecond,
        utilization: None,
        level: Level::Unknown,
        cost_per_connection: Some(2600.0),
        cost_range: None,
        cost_samples: None,
        parts: Vec::new(),
        connections_left: None,
        connections_left_range: None,
        connections_max: None,
        seconds_left: None,
        seconds_left_range: None,
        trend: Trend::Unknown,
        first: false,
        basis: "the driver of eth0 reports no link speed; give it with --nic-speed".into(),
        ..descriptors.clone()
    };
    vec![descriptors, memory, bandwidth]
}

fn traffic(frames: u64, ping: u64, pong: u64, seen: bool) -> Traffic {
    let all = frames + ping + pong;
    let known = |count: u64| seen.then_some(count);
    Traffic {
        frames: known(all),
        text: known(frames),
        binary: known(0),
        continuation: known(0),
        ping: known(ping),
        pong: known(pong),
        close: known(0),
        payload_bytes: known(220 * frames),
        control_bytes: known(4 * (ping + pong)),
        header_bytes: known(6 * all),
        compressed_frames: known(frames / 4),
        stream_bytes: 220 * frames + 4 * (ping + pong) + 6 * all,
        packets: 2 * frames,
        packet_bytes: 330 * frames,
    }
}

fn stalls() -> Stalls {
    Stalls { retransmitted_segments: Some(0), count: 0, seconds: 0.0 }
}

fn memory(kernel: u64, swept: bool) -> Memory {
    if !swept {
        return Memory::default();
    }
    Memory {
        kernel_bytes: Some(kernel),
        receive_bytes: Some(768),
        send_bytes: Some(0),
        forward_alloc_bytes: Some(kernel - 2560 - 768),
        fixed_bytes: Some(2560),
        transmit_bytes: Some(0),
        option_bytes: Some(216),
        backlog_bytes: Some(0),
        receive_limit_bytes: Some(131_072),
        send_limit_bytes: Some(87_040),
        receive_queue_bytes: Some(0),
        send_queue_bytes: Some(0),
    }
}

/// Few digits, so that a number is the same after JSON.
fn short(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn host() -> Host {
    Host {
        name: "localhost".into(),
        kernel: "6.12.0".into(),
        lockdown: Some("none".into()),
        hooks: vec!["cgroup_skb".into(), "iter/tcp".into()],
        degraded: degraded(),
    }
}

fn start() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a timestamp")
}

fn degraded() -> Vec<Degraded> {
    vec![Degraded {
        probe: "openssl".into(),
        reason: "no process maps libssl.so; WebSockets inside TLS are not seen".into(),
    }]
}
