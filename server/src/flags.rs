//! Flags of headroom-server about who may come in and how much of what there may be.

use std::net::SocketAddr;

use agent::cli::{Exit, Failure, parse_size};
use clap::Args;

use crate::daemon::policy::{OriginRule, Policy};
use crate::daemon::{Listener, Options, SlowConsumer};

/// Limits and rules.
#[derive(Debug, Args)]
pub struct Operations {
    /// Let in browsers' pages from this origin only: SCHEME://HOST[:PORT], SCHEME://*.DOMAIN[:PORT], *.DOMAIN (any scheme and
    /// port) or null; may be given several times; others get HTTP 403 [default: any]
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<OriginRule>,
    /// Refuse requests without an Origin field, as programs' usually are, with HTTP 403
    #[arg(long)]
    require_origin: bool,
    /// Refuse connections beyond this many from one IPv4 address or IPv6 /64 with HTTP 429 [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_per_address: Option<u32>,
    /// Rooms (/broadcast/NAME) there may be at once; a request for one more gets HTTP 503
    #[arg(long, value_name = "N", default_value_t = Options::default().max_rooms as u32, value_parser = clap::value_parser!(u32).range(1..=65_000))]
    max_rooms: u32,
    /// Messages a room keeps for members that are slow
    #[arg(long, value_name = "N", default_value_t = Options::default().room_messages as u32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    room_messages: u32,
    /// Payload a room keeps for them; the last message is kept whatever its size
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_room_bytes)]
    room_bytes: usize,
    /// What becomes of a member that falls further behind: it loses the oldest messages, or its connection ends with 1008
    #[arg(long, value_name = "POLICY", default_value = "drop")]
    slow_consumer: SlowConsumer,
    /// Answer GET /metrics (OpenMetrics) there; with --processes, process I on PORT + I; says "metrics on URL" on standard output
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
}

impl Operations {
    /// The socket for scrapes of process `index`.
    ///
    /// # Errors
    /// That it cannot be had.
    pub fn scrapes(&self, index: usize) -> anyhow::Result<Option<Listener>> {
        let Some(mut address) = self.metrics else { return Ok(None) };
        if address.port() > 0 {
            let port = u16::try_from(index).ok().and_then(|index| address.port().checked_add(index));
            address.set_port(port.ok_or_else(|| {
                Failure::new(
                    Exit::Usage,
                    format!("--metrics {address}: there is no port for process {index}"),
                )
            })?);
        }
        let listener = Listener::bind(address, false).map_err(|error| {
            let exit = Listener::failure(address, false, &error).exit();
            Failure::new(exit, format!("cannot listen on {address} for scrapes: {error}"))
        })?;
        Ok(Some(listener))
    }

    /// As options; what they do not say is as usual.
    pub fn options(self) -> Options {
        Options {
            policy: Policy { origins: self.allow_origin, require_origin: self.require_origin },
            max_per_address: self.max_per_address,
            max_rooms: self.max_rooms as usize,
            room_messages: self.room_messages as usize,
            room_bytes: self.room_bytes,
            slow_consumer: self.slow_consumer,
            ..Options::default()
        }
    }
}

fn parse_room_bytes(text: &str) -> Result<usize, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    usize::try_from(size).map_err(|_| format!("{text:?} is too large"))
}
