//! The snapshot as text.

use crate::document::{Ceiling, Connection, Evidence, Listener, Process, Snapshot, Traffic};

use super::costs::costs;
use super::format::{bytes, cost, count, known, latency, percent, quantity};
use super::grid::grid;
use super::headline::{headline, scope};
use super::text::Report;
use super::words::{full_in, level, open_connections, role, trust};

/// Connections that are listed; the rest is counted.
const CONNECTIONS_LISTED: usize = 20;

/// The snapshot for people: the first ceiling, then everything behind it.
pub fn table(snapshot: &Snapshot) -> Report {
    let mut text = Report::new();
    text.line(host(snapshot));
    text.line(headline(&snapshot.ceilings));
    section(&mut text, "Ceilings", ceilings(&snapshot.ceilings));
    section(&mut text, "What a connection costs", costs(&snapshot.ceilings));
    section(&mut text, "Processes", processes(&snapshot.processes));
    section(&mut text, "Listeners", listeners(&snapshot.listeners));
    section(&mut text, "Connections by kernel memory", connections(snapshot));
    section(&mut text, "Advice", advice(snapshot));
    section(&mut text, "Not available", degraded(snapshot));
    text
}

fn section(text: &mut Report, title: &str, body: Report) {
    if !body.is_empty() {
        text.line("");
        text.line(title);
        text.append(&body);
    }
}

fn host(snapshot: &Snapshot) -> String {
    let host = &snapshot.host;
    let mut line = format!("{} · Linux {}", host.name, host.kernel);
    if let Some(lockdown) = host.lockdown.as_deref().filter(|mode| *mode != "none") {
        line.push_str(&format!(" · lockdown {lockdown}"));
    }
    // The agent lists connections within a budget; the listeners' sums are always complete.
    let recognised = snapshot.connections.iter().filter(|one| one.evidence != Some(Evidence::Presumed));
    let listed = recognised.count() as u64;
    let open = snapshot.listeners.iter().map(|listener| listener.connections).sum::<u64>().max(listed);
    line.push_str(&format!(" · {} · {}", snapshot.timestamp, open_connections(open, &snapshot.listeners)));
    if listed < open {
        line.push_str(&format!(", {} of them listed", count(listed)));
    }
    line
}

fn ceilings(ceilings: &[Ceiling]) -> Report {
    let header = [
        "",
        "ceiling",
        "scope",
        ">used",
        ">limit",
        ">use",
        "level",
        ">per connection",
        ">left",
        ">max",
        "full in",
    ];
    let row = |ceiling: &Ceiling| {
        vec![
            if ceiling.first { "▶" } else { "" }.to_owned(),
            ceiling.kind.name().to_owned(),
            scope(&ceiling.scope),
            known(ceiling.used, |value| quantity(value, ceiling.unit)),
            known(ceiling.limit, |value| quantity(value, ceiling.unit)),
            known(ceiling.utilization, percent),
            level(ceiling.level).to_owned(),
            known(ceiling.cost_per_connection, |value| cost(value, ceiling.unit)),
            known(ceiling.connections_left, count),
            known(ceiling.connections_max, count),
            full_in(ceiling),
        ]
    };
    let mut text = grid(&header, &ceilings.iter().map(row).collect::<Vec<_>>());
    for ceiling in ceilings {
        text.line(format_args!("  {} ({}): {}", ceiling.kind.name(), scope(&ceiling.scope), ceiling.basis));
    }
    text
}

fn processes(processes: &[Process]) -> Report {
    let header = [
        ">pid",
        "command",
        ">connections",
        ">websockets",
        ">presumed",
        ">descriptors",
        ">soft limit",
        ">hard limit",
        ">resident",
        ">own/connection",
        ">kernel/connection",
    ];
    let row = |process: &Process| {
        let per_connection = |value: f64| bytes(value.max(0.0).round() as u64);
        vec![
            process.pid.to_string(),
            process.comm.clone(),
            count(process.connections),
            count(process.websockets),
            count(process.presumed),
            known(process.descriptors.open, count),
            known(process.descriptors.soft_limit, count),
            known(process.descriptors.hard_limit, count),
            known(process.memory.resident_bytes, bytes),
            known(process.memory.per_connection_bytes, per_connection),
            known(process.memory.kernel_per_connection_bytes, per_connection),
        ]
    };
    grid(&header, &processes.iter().map(row).collect::<Vec<_>>())
}

fn listeners(listeners: &[Listener]) -> Report {
    let header = [
        ">port",
        "role",
        ">open",
        ">presumed",
        ">opened",
        ">closed",
        ">frames in",
        ">out",
        ">pings in",
        ">out",
        ">pongs in",
        ">out",
        ">unparsed",
    ];
    let row = |listener: &Listener| {
        let both = |field: fn(&Traffic) -> Option<u64>| {
            [&listener.received, &listener.sent].map(|t| known(field(t), count))
        };
        let mut row = vec![
            listener.port.to_string(),
            role(listener.role).to_owned(),
            count(listener.connections),
            count(listener.presumed),
            count(listener.opened),
            count(listener.closed),
        ];
        row.extend(both(|traffic| traffic.frames));
        row.extend(both(|traffic| traffic.ping));
        row.extend(both(|traffic| traffic.pong));
        row.push(bytes(listener.unparsed_bytes));
        row
    };
    grid(&header, &listeners.iter().map(row).collect::<Vec<_>>())
}

fn connections(snapshot: &Snapshot) -> Report {
    let header = [
        "local",
        "remote",
        "role",
        ">pid",
        "parse",
        ">frames in",
        ">out",
        ">pings",
        ">pongs",
        ">rtt",
        ">kernel",
    ];
    let mut sorted: Vec<&Connection> = snapshot.connections.iter().collect();
    // Unknown sorts last: `None` is the smallest.
    sorted.sort_by(|a, b| b.memory.kernel_bytes.cmp(&a.memory.kernel_bytes).then_with(|| a.id.cmp(&b.id)));
    let row = |connection: &&Connection| {
        let sum = |field: fn(&Traffic) -> Option<u64>| {
            Some(connection.received.and_then(|t| field(&t))? + connection.sent.and_then(|t| field(&t))?)
        };
        vec![
            connection.local.clone(),
            connection.remote.clone(),
            role(connection.role).to_owned(),
            known(connection.pid, |pid| pid.to_string()),
            trust(connection).to_owned(),
            known(connection.received.and_then(|traffic| traffic.frames), count),
            known(connection.sent.and_then(|traffic| traffic.frames), count),
            known(sum(|traffic| traffic.ping), count),
            known(sum(|traffic| traffic.pong), count),
            known(connection.ping.rtt_seconds, latency),
            known(connection.memory.kernel_bytes, bytes),
        ]
    };
    let mut text = grid(&header, &sorted.iter().take(CONNECTIONS_LISTED).map(row).collect::<Vec<_>>());
    if let Some(more) = sorted.len().checked_sub(CONNECTIONS_LISTED).filter(|more| *more > 0) {
        text.line(format_args!("  … and {} more", count(more as u64)));
    }
    text
}

fn advice(snapshot: &Snapshot) -> Report {
    let mut text = Report::new();
    for advice in &snapshot.advice {
        text.line(format_args!(
            "  {}: {} ({} → {} connections; {})",
            advice.ceiling.name(),
            advice.action,
            count(advice.effect.connections_max_before),
            count(advice.effect.connections_max_after),
            advice.evidence,
        ));
    }
    text
}

fn degraded(snapshot: &Snapshot) -> Report {
    let mut text = Report::new();
    for missing in &snapshot.host.degraded {
        text.line(format_args!("  {}: {}", missing.probe, missing.reason));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{
        Advice, CostPart, Degraded, Effect, Host, Kind, Level, Memory, Parse, Part, Ping, Range, Role,
        SCHEMA, SelfUsage, Transport, Trend, Unit,
    };

    fn connection(id: u64, kernel_bytes: Option<u64>) -> Connection {
        Connection {
            id: id.to_string(),
            local: "127.0.0.1:8080".into(),
            remote: format!("127.0.0.1:{}", 40_000 + id),
            role: Role::Server,
            transport: Transport::Http1,
            pid: None,
            fd: None,
            netns: 1,
            opened: None,
            parse: Parse::Exact,
            evidence: None,
            unparsed_bytes: 0,
            received: Some(traffic(1234, 0, 7)),
            sent: Some(traffic(9, 7, 0)),
            ping: Ping::default(),
            memory: Memory { kernel_bytes, ..Memory::default() },
            deflate: None,
            upgrade: None,
            stalls: None,
            close_code: None,
        }
    }

    fn traffic(frames: u64, ping: u64, pong: u64) -> Traffic {
        Traffic { frames: Some(frames), ping: Some(ping), pong: Some(pong), ..Traffic::default() }
    }

    fn snapshot(connections: Vec<Connection>) -> Snapshot {
        Snapshot {
            schema: SCHEMA.into(),
            timestamp: jiff::Timestamp::UNIX_EPOCH,
            host: Host {
                name: "localhost".into(),
                kernel: "6.12.0".into(),
                degraded: vec![Degraded { probe: "openssl".into(), reason: "no library found".into() }],
                ..Host::default()
            },
            ceilings: vec![Ceiling {
                kind: Kind::Memory,
                scope: "host".into(),
                used: Some(4 << 30),
                limit: Some(8 << 30),
                unit: Unit::Bytes,
                utilization: Some(0.5),
                level: Level::Ok,
                connections: 22,
                cost_per_connection: None,
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
                basis: "too few connections to price one".into(),
            }],
            processes: Vec::new(),
            listeners: Vec::new(),
            connections,
            advice: vec![Advice {
                id: "raise-nofile".into(),
                ceiling: Kind::Descriptors,
                action: "raise the soft limit to 65,536".into(),
                effect: Effect { connections_max_before: 20_000, connections_max_after: 65_000 },
                evidence: "the hard limit is 524,288".into(),
            }],
            agent: SelfUsage::default(),
        }
    }

    #[test]
    fn lists_the_heaviest_connections_and_counts_the_rest() {
        let connections = (0..1022).map(|id| connection(id, (id > 0).then_some(4096 + id))).collect();
        let text = table(&snapshot(connections)).to_string();
        assert!(text.contains("\n  … and 1,002 more\n"), "{text}");
        assert!(text.contains("127.0.0.1:41021"), "the heaviest is listed: {text}");
        assert!(!text.contains("127.0.0.1:40000"), "the one of unknown weight is not: {text}");
    }

    #[test]
    fn a_cost_is_shown_with_its_parts_and_how_sure_they_are() {
        let mut snapshot = snapshot(Vec::new());
        assert!(!table(&snapshot).to_string().contains("What a connection costs"), "nothing is priced");
        let ceiling = &mut snapshot.ceilings[0];
        ceiling.cost_per_connection = Some(5_120.0);
        ceiling.cost_range = Some(Range { least: 4_096.0, most: Some(6_144.0) });
        ceiling.cost_samples = Some(40);
        let part = |part, cost| CostPart { part, cost, range: None, samples: 22 };
        ceiling.parts = vec![part(Part::KernelFixed, 4_000.0), part(Part::Compression, 1_000.0)];
        let text = table(&snapshot).to_string();
        for expected in ["5.00 KiB", "4.00 KiB to 6.00 KiB", "kernel objects", "3.91 KiB", "compression"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    fn listener(connections: u64) -> Listener {
        Listener {
            port: 8080,
            role: Role::Server,
            netns: 1,
            connections,
            presumed: 0,
            opened: connections,
            adopted: 0,
            closed: 0,
            received: Traffic::default(),
            sent: Traffic::default(),
            unparsed_bytes: 0,
            refused: Default::default(),
            ping_rtt: Vec::new(),
            pong_delay: Vec::new(),
            stalls: Default::default(),
        }
    }

    #[test]
    fn the_listed_connections_do_not_pass_for_all() {
        let mut snapshot = snapshot(vec![connection(1, None)]);
        snapshot.listeners = vec![listener(18_400)];
        assert!(table(&snapshot).to_string().contains("18,400 connections, 1 of them listed"));
    }

    #[test]
    fn presumed_connections_are_listed_apart_with_dashes_for_frames() {
        let presumed = Connection {
            evidence: Some(Evidence::Presumed),
            parse: Parse::Unsynced,
            received: None,
            sent: None,
            ..connection(2, Some(4_096))
        };
        let mut snapshot = snapshot(vec![connection(1, None), presumed]);
        snapshot.listeners = vec![Listener { presumed: 30, ..listener(1) }];
        let text = table(&snapshot).to_string();
        assert!(text.contains("1 connections, 30 more presumed\n"), "{text}");
        let line = text.lines().find(|line| line.contains("127.0.0.1:40002")).expect("listed");
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells[4..], ["presumed", "–", "–", "–", "–", "–", "4.00", "KiB"], "{line}");
    }

    #[test]
    fn what_is_unknown_is_not_nought_and_has_a_reason() {
        let text = table(&snapshot(vec![connection(1, None)])).to_string();
        let line = text.lines().find(|line| line.contains("127.0.0.1:40001")).expect("listed");
        assert!(line.ends_with("7      7    –       –"), "{line}");
        assert!(
            text.contains("first ceiling unknown: memory (host): too few connections to price one"),
            "{text}"
        );
        assert!(text.contains("openssl: no library found"), "{text}");
    }

    #[test]
    fn advice_names_its_effect_and_empty_sections_are_left_out() {
        let text = table(&snapshot(Vec::new())).to_string();
        assert!(text.contains(
            "descriptors: raise the soft limit to 65,536 (20,000 → 65,000 connections; the hard limit is 524,288)"
        ));
        assert!(!text.contains("Listeners"), "{text}");
        assert!(!text.contains("Connections by"), "{text}");
    }
}
