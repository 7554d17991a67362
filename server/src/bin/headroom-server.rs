//! `headroom-server`: the reference WebSocket server.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agent::cli::{self, Exit, Failure, parse_duration, parse_size};
use anyhow::Context;
use clap::Parser;
use server::daemon::{Listener, Options, Server, Tls};
use server::flags::Operations;
use server::shards::{self, Shard};
use server::signals::Signals;
use server::{deflate, limits, logs, memory, notify};
use tracing::{info, warn};

/// Reference WebSocket server: echoes on / and /echo, relays to all others on /broadcast.
///
/// Prints a line "listening on ws://ADDRESS:PORT" for each socket on standard output once it serves; everything else is
/// logged to standard error (RUST_LOG). SIGTERM and SIGINT close every connection with 1001 and end the server. Sockets
/// that systemd hands over (LISTEN_FDS) are served besides those of --listen.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 takes any free port; may be given several times
    #[arg(long, value_name = "ws[s]://ADDR:PORT", value_parser = parse_listen)]
    listen: Vec<Listen>,
    /// Certificate for wss, in PEM, with its chain after it; read again on SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Let other servers that are told the same listen on the same ports (SO_REUSEPORT)
    #[arg(long)]
    reuse_port: bool,
    /// Serve from this many processes that share the ports; every limit is that of one of them, and when one ends they all do
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    processes: u16,
    /// Log lines for people, or JSON objects, to standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: logs::Format,
    #[command(flatten)]
    operations: Operations,
    #[arg(long, hide = true)]
    shard: Option<Shard>,
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
    /// How long an HTTP/2 connection may be without a stream
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    http2_idle_timeout: Duration,
    /// Streams that a peer may have open on an HTTP/2 connection
    #[arg(long, value_name = "N", default_value_t = 1000)]
    http2_max_streams: u32,
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
    // Before anything opens a descriptor.
    let shards = arguments.processes > 1 && arguments.shard.is_none();
    let listeners = if shards { Vec::new() } else { sockets(&arguments)? };
    let tls = tls(&arguments)?;
    logs::start(arguments.log_format, arguments.shard.as_ref().map(|shard| shard.index));
    if shards {
        return run_shards(&arguments);
    }
    if !arguments.no_raise_fd_limit {
        match limits::raise() {
            Ok(limit) if limit.raised() => {
                info!(name: "descriptor_limit", before = limit.before, now = limit.now, "descriptor limit")
            }
            Ok(_) => {}
            // Fewer connections fit; that is no reason not to serve those.
            Err(error) => warn!(name: "descriptor_limit_failed", %error, "cannot raise the descriptor limit"),
        }
    }
    let scrapes = arguments.operations.scrapes(arguments.shard.as_ref().map_or(0, |shard| shard.index))?;
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
        http2_idle_timeout: arguments.http2_idle_timeout,
        http2_max_streams: arguments.http2_max_streams,
        ..arguments.operations.options()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // As many as there are processors, in all.
        .worker_threads((threads / usize::from(arguments.processes)).max(1))
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        // Before the line that says we are ready: whoever waits for it may signal at once.
        let signals = Signals::new().context("install signal handlers")?;
        let mut lines: Vec<String> =
            listeners.iter().map(|listener| format!("listening on {listener}")).collect();
        let mut server = Server::new(listeners, tls, options).context("prepare to serve")?;
        if let Some(scrapes) = scrapes {
            lines.push(format!("metrics on http://{}/metrics", scrapes.address()));
            server = server.measured(scrapes).context("prepare to serve")?;
        }
        let mut stdout = std::io::stdout().lock();
        lines
            .iter()
            .try_for_each(|line| writeln!(stdout, "{line}"))
            .and_then(|()| stdout.flush())
            .context("write to stdout")?;
        drop(stdout);
        notify::ready();
        server.serve(signals).await;
        Ok(())
    })
}

/// The sockets to serve: the parent's, or the service manager's and those of `--listen`.
fn sockets(arguments: &Arguments) -> anyhow::Result<Vec<Listener>> {
    if let Some(shard) = &arguments.shard {
        // SAFETY: first thing in this process, which was started with these for us.
        let listeners = unsafe { shard.take_over() }?;
        // The parent made one for each `--listen`, in that order.
        let secure = arguments.listen.iter().map(|listen| listen.secure);
        return Ok(listeners.into_iter().zip(secure).map(|(one, secure)| one.secured(secure)).collect());
    }
    let mut listeners = handed_over()?;
    for Listen { address, secure } in &arguments.listen {
        let listener = Listener::bind(*address, arguments.reuse_port);
        let listener = listener.map_err(|error| Listener::failure(*address, *secure, &error))?;
        listeners.push(listener.secured(*secure));
    }
    if listeners.is_empty() {
        return Err(nowhere());
    }
    Ok(listeners)
}

/// The certificate for wss.
fn tls(arguments: &Arguments) -> anyhow::Result<Option<Tls>> {
    if let (Some(certificate), Some(key)) = (&arguments.tls_certificate, &arguments.tls_key) {
        let tls = Tls::load(certificate.clone(), key.clone());
        return tls.map(Some).map_err(|error| Failure::new(Exit::Config, format!("{error:#}")).into());
    }
    if arguments.listen.iter().any(|listen| listen.secure) {
        return Err(Failure::new(Exit::Usage, "wss needs --tls-certificate and --tls-key").into());
    }
    Ok(None)
}

/// What the service manager passed.
fn handed_over() -> anyhow::Result<Vec<Listener>> {
    let taken = sd_notify::listen_fds().and_then(|numbers| {
        // SAFETY: LISTEN_FDS and LISTEN_PID say that these were passed to this process, and this is the first look at them.
        unsafe { Listener::adopt(numbers) }
    });
    taken.map_err(|error| {
        Failure::new(Exit::Unavailable, format!("the sockets handed over by the service manager: {error}"))
            .into()
    })
}

fn nowhere() -> anyhow::Error {
    let message =
        "nowhere to listen: give --listen ws://ADDR:PORT, or have systemd hand sockets over (see --help)";
    Failure::new(Exit::Usage, message).into()
}

/// Starts the processes of `--processes` and waits for them.
fn run_shards(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.listen.is_empty() {
        return Err(nowhere());
    }
    if std::env::var_os("LISTEN_FDS").is_some() {
        let message = "--processes makes its own sockets and cannot spread one that systemd hands over: leave one of the two";
        return Err(Failure::new(Exit::Usage, message).into());
    }
    shards::run(
        usize::from(arguments.processes),
        &arguments.listen.iter().map(|listen| listen.address).collect::<Vec<_>>(),
        arguments.reuse_port,
        arguments.listen.len() + usize::from(arguments.operations.metrics.is_some()),
    )
}

/// A socket to be made.
#[derive(Debug, Clone, Copy)]
struct Listen {
    address: SocketAddr,
    /// With TLS.
    secure: bool,
}

fn parse_listen(text: &str) -> Result<Listen, String> {
    let (secure, rest) = match (text.strip_prefix("ws://"), text.strip_prefix("wss://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("only ws://ADDR:PORT and wss://ADDR:PORT are supported".into()),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    authority
        .to_socket_addrs()
        .map_err(|error| error.to_string())?
        .next()
        .map(|address| Listen { address, secure })
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
