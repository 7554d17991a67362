//! Every report of a host on which each name is chosen to harm the terminal that shows it.

use std::num::NonZeroU64;

use crate::document::{
    Advice, Ceiling, Connection, Degraded, Effect, Host, Kind, Level, Listener, Memory, Parse, Ping, Process,
    Role, SCHEMA, SelfUsage, Snapshot, Traffic, Transport, Trend, Unit,
};
use crate::model::{self, Question};

use super::{headline, plans, table};

/// Clears the screen, sets the title, is a control sequence of one byte, ends a line, overwrites it, turns it round.
const HOSTILE: &str =
    "a\x1b[2J\x1b]0;owned\x07\u{9b}31m\x7f\u{85}\n\r\t\u{202e}txt\u{2066}\u{200f}\u{2028}\u{feff}";

/// Kept as it is.
const HARMLESS: &str = "größe 接続 ▶ 👩\u{200d}💻";

fn ceiling() -> Ceiling {
    Ceiling {
        kind: Kind::Descriptors,
        scope: format!("cgroup:/{HOSTILE}"),
        used: Some(9),
        limit: Some(10),
        unit: Unit::Descriptors,
        utilization: Some(0.9),
        level: Level::Critical,
        connections: 9,
        cost_per_connection: Some(1.0),
        cost_range: Some(crate::document::Range { least: 1.0, most: None }),
        cost_samples: Some(9),
        parts: Vec::new(),
        connections_left: Some(1),
        connections_left_range: None,
        connections_max: Some(10),
        seconds_left: None,
        seconds_left_range: None,
        trend: Trend::Unknown,
        first: false,
        basis: HOSTILE.into(),
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        schema: SCHEMA.into(),
        timestamp: jiff::Timestamp::UNIX_EPOCH,
        host: Host {
            name: HOSTILE.into(),
            kernel: HOSTILE.into(),
            lockdown: Some(HOSTILE.into()),
            hooks: vec![HOSTILE.into()],
            degraded: vec![Degraded { probe: HOSTILE.into(), reason: HOSTILE.into() }],
        },
        ceilings: vec![ceiling(), Ceiling { scope: format!("interface:{HOSTILE}"), ..ceiling() }],
        processes: vec![Process {
            presumed: 0,
            pid: 7,
            comm: format!("{HARMLESS}{HOSTILE}"),
            cgroup: Some(HOSTILE.into()),
            container: None,
            pod_uid: Some(HOSTILE.into()),
            connections: 1,
            websockets: 1,
            descriptors: Default::default(),
            memory: Default::default(),
        }],
        listeners: vec![Listener {
            presumed: 0,
            port: 80,
            role: Role::Server,
            netns: 1,
            connections: 1,
            opened: 1,
            adopted: 0,
            closed: 0,
            received: Traffic::default(),
            sent: Traffic::default(),
            unparsed_bytes: 0,
            refused: Default::default(),
            ping_rtt: Vec::new(),
            pong_delay: Vec::new(),
            stalls: Default::default(),
        }],
        connections: vec![Connection {
            evidence: None,
            id: HOSTILE.into(),
            local: HOSTILE.into(),
            remote: HOSTILE.into(),
            role: Role::Server,
            transport: Transport::Http1,
            pid: None,
            fd: None,
            netns: 1,
            opened: None,
            parse: Parse::Exact,
            unparsed_bytes: 0,
            received: None,
            sent: None,
            ping: Ping::default(),
            memory: Memory::default(),
            deflate: None,
            upgrade: Some(Default::default()),
            stalls: None,
            close_code: None,
        }],
        advice: vec![Advice {
            id: HOSTILE.into(),
            ceiling: Kind::Descriptors,
            action: HOSTILE.into(),
            effect: Effect { connections_max_before: 1, connections_max_after: 2 },
            evidence: HOSTILE.into(),
        }],
        agent: SelfUsage::default(),
    }
}

/// Nothing that a terminal obeys, and as many lines as the report has without the names.
fn assert_plain(text: &str) {
    for (place, line) in text.lines().enumerate() {
        let found: Vec<char> =
            line.chars().filter(|c| c.is_control() || ('\u{2028}'..='\u{202e}').contains(c)).collect();
        assert!(found.is_empty(), "line {place} holds {found:?}: {line:?}");
        assert!(!line.contains(['\u{2066}', '\u{200f}', '\u{feff}']), "line {place}: {line:?}");
    }
}

#[test]
fn a_snapshot_of_hostile_names_is_plain_text() {
    let text = table(&snapshot()).to_string();
    assert_plain(&text);
    assert!(text.contains(HARMLESS), "{text}");
    for section in ["Ceilings", "What a connection costs", "Processes", "Advice", "Not available"] {
        assert_eq!(text.lines().filter(|line| *line == section).count(), 1, "{section}: {text}");
    }
    // A host, a headline, seven sections with a title and an empty line each, and their rows: none has made itself a line.
    assert_eq!(text.lines().count(), 2 + 7 * 2 + (3 + 2) + 3 + 2 + 2 + 2 + 1 + 1, "{text}");
}

#[test]
fn a_headline_of_hostile_names_is_one_line_of_a_report() {
    let first = Ceiling { first: true, ..ceiling() };
    for ceilings in [vec![first], vec![ceiling()]] {
        let snapshot = Snapshot { ceilings, ..snapshot() };
        let text = table(&snapshot).to_string();
        assert_plain(&text);
        assert!(headline(&snapshot.ceilings).contains('\x1b'), "the words themselves are what was said");
    }
}

#[test]
fn a_plan_with_hostile_words_is_plain_text() {
    let question = Question { connections: NonZeroU64::new(5), ..Question::default() };
    let mut plan = model::plan(&question).expect("countable");
    plan.ceilings = vec![ceiling()];
    assert_plain(&plans(&[plan]).to_string());
}
