//! The TCP stack of the agent's network namespace: memory, ports, what it had no room for.

use super::text::{self, number};
use crate::model::{LocalPorts, Overflows, TcpMemory};

pub(super) fn memory() -> Result<TcpMemory, String> {
    let page = rustix::param::page_size() as u64;
    let sockstat = text::named("/proc/net/sockstat")?;
    let line = sockstat.lines().find(|line| line.starts_with("TCP:")).ok_or("no TCP line")?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "mem");
    let used = number(words.next())?;
    let limits = text::named("/proc/sys/net/ipv4/tcp_mem")?;
    let pressure = number(limits.split_whitespace().nth(1))?;
    Ok(TcpMemory { used: used * page, pressure: pressure * page })
}

pub(super) fn overflows() -> Result<Overflows, String> {
    parse_overflows(&text::named("/proc/net/netstat")?)
}

/// Each group of counters is a line of names and a line of numbers.
fn parse_overflows(text: &str) -> Result<Overflows, String> {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = lines.next().zip(lines.next()).ok_or("no TcpExt lines")?;
    let mut overflows = Overflows::default();
    for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
        match name {
            "ListenOverflows" => overflows.overflows = number(Some(value))?,
            "ListenDrops" => overflows.drops = number(Some(value))?,
            "TCPReqQFullDrop" => overflows.request_drops = number(Some(value))?,
            "TCPReqQFullDoCookies" => overflows.cookies = number(Some(value))?,
            _ => {}
        }
    }
    Ok(overflows)
}

pub(super) fn local_ports() -> Result<LocalPorts, String> {
    let range = text::named("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut range = range.split_whitespace().map(port);
    let mut next = || range.next().unwrap_or_else(|| Err("a port is missing".into()));
    let (first, last) = (next()?, next()?);
    let reserved = text::named("/proc/sys/net/ipv4/ip_local_reserved_ports")?;
    Ok(LocalPorts { first, last, reserved: reserved_within(&reserved, first, last)? })
}

/// `8080,9148,30000-30100`, in order and without overlaps (`proc_do_large_bitmap`).
fn reserved_within(text: &str, first: u16, last: u16) -> Result<u16, String> {
    let mut reserved = 0;
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (port(from)?.max(first), port(to)?.min(last));
        reserved += (u32::from(to) + 1).saturating_sub(u32::from(from));
    }
    u16::try_from(reserved).map_err(|_| "all ports are reserved".into())
}

fn port(word: &str) -> Result<u16, String> {
    word.parse().map_err(|_| format!("{word:?} is no port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPReqQFullDrop\nTcpExt: 1 2 3 4\n\
                    IpExt: ListenDrops\nIpExt: 9\n";
        let overflows = Overflows { overflows: 2, drops: 3, request_drops: 4, cookies: 0 };
        assert_eq!(parse_overflows(text), Ok(overflows));
        assert!(parse_overflows("").is_err());
    }

    #[test]
    fn reserved_ports_count_where_they_are_in_the_range() {
        assert_eq!(reserved_within("\n", 32_768, 60_999), Ok(0));
        assert_eq!(reserved_within("8080,32760-32769,50000,60990-61010\n", 32_768, 60_999), Ok(2 + 1 + 10));
        let ports = LocalPorts { first: 32_768, last: 60_999, reserved: 13 };
        assert_eq!(ports.count(), 28_232 - 13);
    }
}
