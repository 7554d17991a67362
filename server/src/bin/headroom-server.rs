//! `headroom-server`: the reference WebSocket server.

use std::io::{IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use agent::cli::{self, Exit, Failure, parse_duration, parse_size};
use anyhow::Context;
use clap::Parser;
use server::daemon::{Options, Server};
use server::deflate;
use server::limits;
use server::memory;
use server::signals::Stop;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

/// Reference WebSocket server: echoes on / and /echo, relays to all others on /broadcast.
///
/// Prints one line, "listening on ws://ADDRESS:PORT", on standard output once it listens; everything else is logged
/// to standard error (RUST_LOG). SIGTERM and SIGINT close every connection with 1001 and end the server.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 takes any free port
    #[arg(long, value_name = "ws://ADDR:PORT", value_parser = parse_listen)]
    listen: SocketAddr,
    /// Time between pings on a connection; 0 sends none
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    ping_interval: Duration,
    /// Ping payload, up to 125B; from 8B on it starts with a 64-bit big-endian counter
    #[arg(long, value_name = "SIZE", default_value = "0B", value_parser = parse_ping_payload)]
    ping_payload: usize,
    /// Drop a peer that sent nothing for this long despite pings, rounded up to whole ping intervals [default: two]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pong_timeout: Option<Duration>,
    /// Refuse connections beyond this many with HTTP 503 [default: no limit]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Time a peer has to complete the HTTP upgrade
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    handshake_timeout: Duration,
    /// Largest message accepted; a larger one ends the connection with close code 1009
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_message_size)]
    max_message_size: usize,
    /// How long shutdown waits for peers to answer the Close
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    drain_timeout: Duration,
    /// How long nothing happens on a connection before its task and buffers are given back
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = parse_duration)]
    idle_after: Duration,
    /// Keep the soft limit on open descriptors instead of raising it to the hard limit
    #[arg(long)]
    no_raise_fd_limit: bool,
    #[command(flatten)]
    deflate: deflate::Flags,
}

fn main() -> ExitCode {
    memory::keep_together();
    match cli::parse::<Arguments>() {
        Ok(arguments) => cli::run("headroom-server", || run(arguments)),
        Err(code) => code,
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    log_to_stderr();
    if !arguments.no_raise_fd_limit {
        match limits::raise() {
            Ok(limit) => info!(before = limit.before, now = limit.now, "descriptor limit"),
            // Fewer connections fit; that is no reason not to serve those.
            Err(error) => warn!(%error, "cannot raise the descriptor limit"),
        }
    }
    let options = Options {
        ping_interval: arguments.ping_interval,
        ping_payload: arguments.ping_payload,
        pong_timeout: arguments.pong_timeout,
        max_connections: arguments.max_connections.unwrap_or(usize::MAX),
        handshake_timeout: arguments.handshake_timeout,
        max_message: arguments.max_message_size,
        drain_timeout: arguments.drain_timeout,
        idle_after: arguments.idle_after,
        deflate: arguments.deflate.settings(),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        // Before the line that says we are ready: whoever waits for it may signal at once.
        let stop = Stop::new().context("install signal handlers")?;
        let server = Server::bind(arguments.listen, options).map_err(|error| {
            let exit = match error.kind() {
                std::io::ErrorKind::PermissionDenied => Exit::NoPermission,
                _ => Exit::Unavailable,
            };
            Failure::new(exit, format!("cannot listen on ws://{}: {error}", arguments.listen))
        })?;
        let address = server.local_addr().context("read the listening address")?;
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "listening on ws://{address}")
            .and_then(|()| stdout.flush())
            .context("write to stdout")?;
        drop(stdout);
        server.serve(stop).await;
        Ok(())
    })
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let Some(rest) = text.strip_prefix("ws://") else {
        return Err("only ws://ADDR:PORT is supported".into());
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    authority
        .to_socket_addrs()
        .map_err(|error| error.to_string())?
        .next()
        .ok_or_else(|| "the name has no address".into())
}

fn parse_ping_payload(text: &str) -> Result<usize, String> {
    match parse_size(text).map_err(|error| error.to_string())? {
        size @ 0..=125 => Ok(size as usize),
        _ => Err("a ping carries at most 125B (RFC 6455 section 5.5)".into()),
    }
}

fn parse_message_size(text: &str) -> Result<usize, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    usize::try_from(size).map_err(|_| format!("{text:?} is too large"))
}
