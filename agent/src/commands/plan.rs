//! `headroom-agent plan`: the model on numbers given by hand.

use std::io::Write as _;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use agent::cli::{Exit, Failure, Rate, UnitError};
use agent::cli::{parse_count, parse_duration, parse_frequency, parse_rate, parse_size};
use agent::model::wire::CONTROL_MOST;
use agent::model::zlib::{DEFAULT_MEM_LEVEL, DEFAULT_WINDOW_BITS, MEM_LEVELS, WINDOW_BITS};
use agent::model::{self, Compression, KERNEL_BYTES, Messages, Pings, Question};
use agent::report;
use clap::builder::TypedValueParser;

/// Bytes of the longest message there is a plan for: a stream's length is counted in 64 bits, headers included.
const LONGEST_MESSAGE: u64 = 1 << 40;

// A value may begin with a hyphen, so that a negative number is told it is one and not that it is an unknown flag.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// WebSocket connections: 20000, 250K, 1M; several give a plan each. Without it, only how many fit.
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = count, allow_hyphen_values = true)]
    connections: Vec<NonZeroU64>,
    /// Memory that connections may take: 64GB, 16GiB.
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory: Option<NonZeroU64>,
    /// What the server itself keeps for a connection, compression left out: 10KB.
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    bytes_per_connection: Option<NonZeroU64>,
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = parse_size,
        allow_hyphen_values = true,
        help = format!("Kernel memory of a TCP connection, {KERNEL_BYTES}B if not given; 0 where it is part of \
                        --bytes-per-connection")
    )]
    kernel_bytes_per_connection: Option<u64>,
    /// Compression with windows of this many bits.
    #[arg(long, value_name = "9..15", value_parser = within(WINDOW_BITS), allow_hyphen_values = true)]
    window_bits: Option<u8>,
    /// Compression with zlib's memLevel.
    #[arg(long, value_name = "1..9", value_parser = within(MEM_LEVELS), allow_hyphen_values = true)]
    mem_level: Option<u8>,
    /// Compression whose contexts end with each message, and are shared by the connections of a thread.
    #[arg(long)]
    no_context_takeover: bool,
    /// Time between two pings to a connection: 30s.
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    ping_interval: Option<Duration>,
    /// Payload of a ping, at most 125 bytes.
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "0",
        requires = "ping_interval",
        value_parser = ping_payload,
        allow_hyphen_values = true
    )]
    ping_payload: u64,
    /// Messages to a connection: 1/s, 4/m, 10/h.
    #[arg(
        long,
        value_name = "RATE",
        requires = "message_size",
        value_parser = frequency,
        allow_hyphen_values = true
    )]
    message_rate: Option<f64>,
    /// Payload of a message: 512B, 4KiB.
    #[arg(
        long,
        value_name = "SIZE",
        requires = "message_rate",
        value_parser = message_size,
        allow_hyphen_values = true
    )]
    message_size: Option<u64>,
    /// What the interface carries each way: 1G, 25Gbit.
    #[arg(long, value_name = "RATE", value_parser = link_speed, allow_hyphen_values = true)]
    nic_speed: Option<NonZeroU64>,
    /// Packets a second that the interface carries each way: 500K, 2M.
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    packet_rate: Option<NonZeroU64>,
    /// Descriptors that the server may open.
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    fd_limit: Option<NonZeroU64>,
    /// HTTP/2, with this many WebSockets on a TCP connection; HTTP/1.1 without it.
    #[arg(long, value_name = "K", value_parser = count, allow_hyphen_values = true)]
    streams_per_connection: Option<NonZeroU64>,
    /// Round trip time to the clients, for the time until they have their first message: 10ms.
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    rtt: Option<Duration>,
    /// How long all clients take to come back after a restart, for handshakes a second: 1m.
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    reconnect_within: Option<Duration>,
    /// Connections use TLS 1.3.
    #[arg(long)]
    tls: bool,
    /// Connections use IPv6.
    #[arg(long)]
    ipv6: bool,
    /// One JSON document a line, one line for each number of connections.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let counts: Vec<Option<NonZeroU64>> = match arguments.connections.as_slice() {
        [] => vec![None],
        counts => counts.iter().copied().map(Some).collect(),
    };
    let plan = |connections| {
        model::plan(&arguments.question(connections))
            .map_err(|error| Failure::new(Exit::Usage, error.to_string()))
    };
    let plans = counts.into_iter().map(plan).collect::<Result<Vec<_>, _>>()?;
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        for plan in &plans {
            agent::document::json::write(&mut stdout, plan)?;
            writeln!(stdout)?;
        }
    } else {
        write!(stdout, "{}", report::plans(&plans))?;
    }
    stdout.flush()?;
    Ok(())
}

impl Arguments {
    fn question(&self, connections: Option<NonZeroU64>) -> Question {
        let compresses = self.window_bits.is_some() || self.mem_level.is_some() || self.no_context_takeover;
        let compression = compresses.then(|| Compression {
            window_bits: self.window_bits.unwrap_or(DEFAULT_WINDOW_BITS),
            mem_level: self.mem_level.unwrap_or(DEFAULT_MEM_LEVEL),
            no_context_takeover: self.no_context_takeover,
        });
        let messages = self.message_rate.zip(self.message_size);
        Question {
            connections,
            memory: self.memory,
            bytes_per_connection: self.bytes_per_connection,
            kernel_bytes_per_connection: self.kernel_bytes_per_connection,
            compression,
            pings: self.ping_interval.map(|interval| Pings { interval, payload: self.ping_payload }),
            messages: messages.map(|(per_second, payload)| Messages { per_second, payload }),
            streams_per_connection: self.streams_per_connection,
            nic_speed: self.nic_speed,
            packet_rate: self.packet_rate,
            fd_limit: self.fd_limit,
            rtt: self.rtt,
            reconnect_within: self.reconnect_within,
            tls: self.tls,
            ipv6: self.ipv6,
        }
    }
}

fn within(range: RangeInclusive<u8>) -> impl TypedValueParser<Value = u8> {
    clap::value_parser!(u8).range(i64::from(*range.start())..=i64::from(*range.end()))
}

fn some(text: &str, value: u64) -> Result<NonZeroU64, String> {
    NonZeroU64::new(value).ok_or_else(|| nothing(text))
}

fn nothing(text: &str) -> String {
    format!("{text:?} must be more than nothing")
}

fn count(text: &str) -> Result<NonZeroU64, String> {
    some(text, parse_count(text).map_err(|error| error.to_string())?)
}

fn size(text: &str) -> Result<NonZeroU64, String> {
    some(text, parse_size(text).map_err(|error| error.to_string())?)
}

fn link_speed(text: &str) -> Result<NonZeroU64, String> {
    let Rate(bits) = parse_rate(text).map_err(|error| error.to_string())?;
    some(text, bits)
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err(nothing(text)) } else { Ok(duration) }
}

/// Bytes, with or without their unit: there is only this one.
fn ping_payload(text: &str) -> Result<u64, String> {
    let size = text.parse().or_else(|_| parse_size(text).map_err(|error| error.to_string()))?;
    if size > CONTROL_MOST {
        return Err(format!("a ping carries at most {CONTROL_MOST} bytes (RFC 6455 section 5.5)"));
    }
    Ok(size)
}

fn frequency(text: &str) -> Result<f64, String> {
    let per_second = parse_frequency(text).map_err(|error| error.to_string())?;
    if per_second > 0.0 { Ok(per_second) } else { Err(nothing(text)) }
}

fn message_size(text: &str) -> Result<u64, String> {
    match parse_size(text).map_err(|error| error.to_string())? {
        bytes if bytes > LONGEST_MESSAGE => Err(UnitError::Range(text.into()).to_string()),
        bytes => Ok(bytes),
    }
}
