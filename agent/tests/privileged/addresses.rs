//! IPv6, and IPv4 through a socket of IPv6.

use std::net::TcpListener;

use crate::exchange::{CONNECTIONS, Exchange, announced};
use crate::python;
use crate::runner::Skip;

pub(crate) fn ipv6_is_counted_exactly() -> anyhow::Result<()> {
    exchange("::1", "[::1]")
}

pub(crate) fn ipv4_through_a_dual_stack_listener_is_counted_exactly() -> anyhow::Result<()> {
    exchange("::", "127.0.0.1")
}

/// A server on `listen`, reached over and shown as `host`.
fn exchange(listen: &str, host: &str) -> anyhow::Result<()> {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        return Err(Skip(format!("this host has no IPv6: {error}")).into());
    }
    let (server, port) = announced(python::start("server.py", &[listen, "0"])?)?;
    let servers = [server.pid()];
    let holders = [(&servers[..], CONNECTIONS)];
    let url = format!("ws://{host}:{port}/");
    Exchange { url, client: &[], ports: &[port], holders: &holders }.run()?.check(host, port, &servers)
}
