//! Command-line flags of the load generator.

use std::path::PathBuf;
use std::time::Duration;

use agent::cli::{parse_duration, parse_size};
use clap::{Parser, ValueEnum, value_parser};

use super::target::{Target, TargetError};
use super::tls::Trust;
use super::{Arrival, Options, Payload, Sizes};
use crate::deflate::{Content, Settings};

/// WebSocket load generator for this host: opens connections, sends on a fixed schedule, measures, counts exactly.
///
/// SIGINT or SIGTERM ends the phase it comes in and all waiting; a second one ends the rest. The result is printed all the
/// same.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// Server to load, such as ws://127.0.0.1:8080/echo; with several, connections go to each in turn
    #[arg(long, required = true)]
    url: Vec<String>,
    /// Connections to open
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    connections: u32,
    /// Connections opened per second
    #[arg(long, value_name = "R", default_value = "2000", value_parser = parse_positive)]
    rate: f64,
    /// What carries the WebSockets
    #[arg(long, value_enum, default_value_t = Transport::Http1)]
    transport: Transport,
    /// WebSockets on each HTTP/2 connection
    #[arg(long, value_name = "K", default_value_t = 100, value_parser = value_parser!(u32).range(1..))]
    streams_per_connection: u32,
    /// Certificates trusted for wss://, a PEM file
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Trust any certificate; on loopback only
    #[arg(long, conflicts_with = "tls_ca")]
    tls_insecure: bool,
    /// How long to send, from the moment all connections are open
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Then keep the connections this long, answering pings only
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = parse_duration)]
    linger: Duration,
    /// Messages per second on each connection; 0 leaves them idle
    #[arg(long, value_name = "R", default_value = "0", value_parser = parse_not_negative)]
    message_rate: f64,
    /// When messages are due
    #[arg(long, value_enum, default_value_t = Arrival::Constant)]
    arrival: Arrival,
    /// Send on each connection as soon as the last message has come back, instead of at a rate
    #[arg(long, conflicts_with = "message_rate")]
    closed_loop: bool,
    /// Payload of a message: a size, several (64B,8KiB) or a range (16B..8KiB), each equally likely. From 16B on each is
    /// matched with its own echo, below that by order
    #[arg(long, value_name = "SIZES", default_value = "128B", value_parser = Sizes::parse)]
    message_size: Sizes,
    /// What messages consist of
    #[arg(long, value_enum, default_value_t = Payload::Text)]
    payload: Payload,
    /// Send binary messages instead of text
    #[arg(long)]
    binary: bool,
    /// Where chance begins: the same seed decides the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Share of connections that read slowly
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = parse_share)]
    slow_readers: f64,
    /// What a slow reader reads in a second
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = parse_size)]
    read_rate: u64,
    /// Share of connections that are ended by a reset instead of a closing handshake
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = parse_share)]
    abort: f64,
    /// Connections per second that end and come back during --duration
    #[arg(long, value_name = "R", default_value = "0", value_parser = parse_not_negative)]
    churn: f64,
    /// After --duration reset all connections at once and open them again as fast as the server takes them
    #[arg(long)]
    storm: bool,
    /// Before the end send a ping on every connection and wait for the answers
    #[arg(long)]
    ping_all: bool,
    /// The same with a message
    #[arg(long)]
    message_all: bool,
    /// First block of source addresses on loopback, 256 connections each: 254 * I + J is 127.0.I.(J + 1)
    #[arg(long, value_name = "N", default_value_t = 0)]
    first_source: u32,
    /// Offer permessage-deflate
    #[arg(long)]
    deflate: bool,
    /// Largest window offered for the server's messages, as a logarithm
    #[arg(long, value_name = "BITS", default_value_t = 15, requires = "deflate",
        value_parser = value_parser!(u8).range(9..=15))]
    deflate_server_window_bits: u8,
    /// Largest window offered for our messages, as a logarithm
    #[arg(long, value_name = "BITS", default_value_t = 15, requires = "deflate",
        value_parser = value_parser!(u8).range(9..=15))]
    deflate_client_window_bits: u8,
    /// Ask that the server's messages do not refer to earlier ones
    #[arg(long, requires = "deflate")]
    deflate_server_no_takeover: bool,
    /// Promise that our messages do not refer to earlier ones
    #[arg(long, requires = "deflate")]
    deflate_client_no_takeover: bool,
    /// Say on standard error when all connections have been opened
    #[arg(long)]
    announce: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    /// Permit a server that is not on this host's loopback
    #[arg(long)]
    allow_remote: bool,
}

/// What carries WebSockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// A TCP connection each.
    Http1,
    /// Streams of HTTP/2 connections: by prior knowledge, over TLS by ALPN.
    Http2,
}

impl Arguments {
    /// Whether the result is to be JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether HTTP/2 carries the WebSockets.
    pub fn http2(&self) -> bool {
        self.transport == Transport::Http2
    }

    /// The servers.
    ///
    /// # Errors
    /// That of the first URL that is no target.
    pub fn targets(&self) -> Result<Vec<Target>, TargetError> {
        self.url.iter().map(|url| Target::resolve(url, self.allow_remote)).collect()
    }

    /// Whose certificates are trusted by those of `targets` that use TLS.
    ///
    /// # Errors
    /// In words, when nobody is, or anybody beyond this host.
    pub fn trust(&self, targets: &[Target]) -> Result<Trust<'_>, String> {
        let beyond = targets.iter().any(|target| target.tls && !target.is_loopback());
        match &self.tls_ca {
            Some(file) => Ok(Trust::File(file)),
            None if self.tls_insecure && beyond => Err("--tls-insecure is for servers on loopback".into()),
            None if self.tls_insecure => Ok(Trust::Anyone),
            None => Err("wss:// needs --tls-ca or --tls-insecure".into()),
        }
    }

    /// All that is not about where.
    ///
    /// # Errors
    /// In words, when the arguments do not fit each other.
    pub fn options(&self, progress: bool) -> Result<Options, String> {
        if self.slow_readers > 0.0 && self.read_rate == 0 {
            return Err("--read-rate must be more than 0".into());
        }
        Ok(Options {
            connections: self.connections,
            rate: self.rate,
            duration: self.duration,
            linger: self.linger,
            message_rate: self.message_rate,
            arrival: self.arrival,
            closed_loop: self.closed_loop,
            sizes: self.message_size.clone(),
            payload: self.payload,
            binary: self.binary,
            seed: self.seed,
            slow_readers: self.slow_readers,
            read_rate: self.read_rate as f64,
            abort: self.abort,
            churn: self.churn,
            storm: self.storm,
            ping_all: self.ping_all,
            message_all: self.message_all,
            streams_per_connection: self.http2().then_some(self.streams_per_connection),
            first_source: self.first_source,
            deflate: self.deflate.then(|| Settings {
                server_bits: self.deflate_server_window_bits,
                client_bits: self.deflate_client_window_bits,
                server_takeover: !self.deflate_server_no_takeover,
                client_takeover: !self.deflate_client_no_takeover,
                min_size: 0,
                content: Content::All,
                ..Settings::default()
            }),
            progress,
            announce: self.announce,
        })
    }
}

fn parse_positive(text: &str) -> Result<f64, String> {
    match parse_not_negative(text)? {
        0.0 => Err("must be more than 0".into()),
        rate => Ok(rate),
    }
}

fn parse_not_negative(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    // Outside this range the schedule's arithmetic would overflow or mean nothing.
    if number == 0.0 || (1e-3..=1e9).contains(&number) {
        Ok(number)
    } else {
        Err("must be 0 or from 0.001 to 1e9".into())
    }
}

/// A share, as a number or in percent.
fn parse_share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share = number.parse::<f64>().map_err(|_| format!("{text:?} is not a number"))? / scale;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("must be from 0 to 1, or to 100%".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_as_written() {
        assert_eq!((parse_share("0.25"), parse_share("25%")), (Ok(0.25), Ok(0.25)));
        assert!(["1.1", "-1", "101%", "x", "nan"].iter().all(|wrong| parse_share(wrong).is_err()));
    }
}
