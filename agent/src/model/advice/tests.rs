//! Each rule on ceilings with numbers that can be checked by hand.

mod compression;

use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::document::{CostPart, Descriptors, Level, Part, Traffic, Trend, Unit};
use crate::model::ceilings::fixture::listener;
use crate::model::{Holder, Peers, ProcessReading, process_scope};

/// 1,000 connections in one process.
const CONNECTIONS: u64 = 1_000;

fn ceiling(kind: Kind, scope: &str, used: u64, limit: u64, cost: f64) -> Ceiling {
    let left = (limit.saturating_sub(used) as f64 / cost) as u64;
    Ceiling {
        kind,
        scope: scope.into(),
        used: Some(used),
        limit: Some(limit),
        unit: if kind == Kind::Bandwidth { Unit::BitsPerSecond } else { Unit::Bytes },
        utilization: Some(used as f64 / limit as f64),
        level: Level::Ok,
        connections: CONNECTIONS,
        cost_per_connection: Some(cost),
        cost_range: None,
        cost_samples: None,
        parts: Vec::new(),
        connections_left: Some(left),
        connections_left_range: None,
        connections_max: Some(left + CONNECTIONS),
        seconds_left: None,
        seconds_left_range: None,
        trend: Trend::Unknown,
        first: false,
        basis: String::new(),
    }
}

/// With a cost of these parts; compression is within the process's.
fn parts(mut ceiling: Ceiling, parts: &[(Part, f64)]) -> Ceiling {
    let part = |&(part, cost)| CostPart { part, cost, range: None, samples: CONNECTIONS };
    ceiling.parts = parts.iter().map(part).collect();
    ceiling
}

/// Descriptors of process 7: 1,020 of 1,124, so 104 are left.
fn descriptors() -> Ceiling {
    ceiling(Kind::Descriptors, "process:7", 1_020, 1_124, 1.0)
}

/// The host's memory: 200,000 bytes a connection, 150,000 of them in the process.
fn memory(left: u64) -> Ceiling {
    let used = 10 * CONNECTIONS * 200_000;
    let memory = ceiling(Kind::Memory, "host", used, used + left * 200_000, 200_000.0);
    parts(
        memory,
        &[(Part::KernelFixed, 4_000.0), (Part::KernelBuffers, 46_000.0), (Part::Process, 150_000.0)],
    )
}

fn compressing(left: u64, compression: f64) -> Ceiling {
    let mut memory = memory(left);
    memory.parts.push(CostPart { part: Part::Compression, cost: compression, range: None, samples: 1 });
    memory
}

fn bandwidth(left: u64) -> Ceiling {
    // A ping of 8 + 2 bytes every second and its acknowledgement: 8 × (100 + 90); as much again of messages.
    let cost = 2.0 * 8.0 * 190.0;
    let used = CONNECTIONS * cost as u64;
    let bandwidth = ceiling(Kind::Bandwidth, "interface:eth0", used, used + left * cost as u64, cost);
    parts(bandwidth, &[(Part::Keepalive, cost / 2.0), (Part::Application, cost / 2.0)])
}

fn worker(pid: u32, soft: u64, hard: u64) -> ProcessReading {
    ProcessReading {
        pid,
        comm: "server".into(),
        descriptors: Descriptors { open: Some(1_020), soft_limit: Some(soft), hard_limit: Some(hard) },
        ..ProcessReading::default()
    }
}

fn reading(soft: u64, hard: u64) -> Reading {
    Reading { processes: vec![worker(7, soft, hard)], descriptors_max: Some(1 << 20), ..Reading::default() }
}

fn summary() -> Summary {
    let holder = Holder {
        connections: CONNECTIONS,
        compressed: CONNECTIONS,
        compression_bytes: CONNECTIONS * 302_080,
        ..Holder::default()
    };
    Summary { holders: [(7, holder)].into(), fixed_known: true, ..Summary::default() }
}

/// Two minutes in which each connection was pinged every second with `ping` bytes, and sent so many `messages`, `compressed` of them,
/// of `bytes` each.
fn rates(ping: u64, messages: u64, compressed: u64, bytes: u64) -> Rates {
    let mut rates = Rates::default();
    for step in 0..=40u64 {
        let second = 3 * step;
        let so_far = |all: u64| CONNECTIONS * all * second / 120;
        let mut listener = listener(1, 80, CONNECTIONS);
        let pings = CONNECTIONS * second;
        let nothing = Traffic {
            frames: Some(0),
            text: Some(0),
            binary: Some(0),
            ping: Some(0),
            pong: Some(0),
            control_bytes: Some(pings * ping),
            payload_bytes: Some(0),
            compressed_frames: Some(0),
            ..Traffic::default()
        };
        listener.received =
            Traffic { pong: Some(pings), packets: pings, packet_bytes: 60 * pings, ..nothing };
        listener.sent = Traffic {
            ping: Some(pings),
            text: Some(so_far(messages)),
            compressed_frames: Some(so_far(compressed)),
            payload_bytes: Some(so_far(messages) * bytes),
            packets: pings,
            packet_bytes: 60 * pings,
            ..nothing
        };
        rates.observe(Duration::from_secs(second), [&listener].into_iter());
    }
    rates
}

fn advice(ceilings: &[Ceiling], reading: &Reading, summary: &Summary, rates: &Rates) -> Vec<Advice> {
    let ceilings = what_if::with(ceilings, &[]);
    advise(&Known { ceilings: &ceilings, reading, summary, rates })
}

fn silent(ceilings: &[Ceiling], reading: &Reading) -> Vec<Advice> {
    advice(ceilings, reading, &Summary::default(), &Rates::default())
}

fn find<'a>(all: &'a [Advice], id: &str) -> &'a Advice {
    all.iter().find(|advice| advice.id == id).unwrap_or_else(|| panic!("no {id} in {all:#?}"))
}

fn given(all: &[Advice], id: &str) -> bool {
    all.iter().any(|advice| advice.id == id)
}

fn effect(advice: &Advice) -> (u64, u64) {
    (advice.effect.connections_max_before, advice.effect.connections_max_after)
}

#[test]
fn the_soft_limit_goes_to_the_hard_one_and_no_further_than_the_next_ceiling() {
    let all = silent(&[descriptors(), memory(10_000)], &reading(1_124, 4_096));
    assert_eq!(effect(find(&all, "raise-soft-descriptor-limit")), (1_104, 4_096 - 20));
    let near = silent(&[descriptors(), memory(500)], &reading(1_124, 4_096));
    assert_eq!(effect(find(&near, "raise-soft-descriptor-limit")), (1_104, 1_500));
    assert!(
        silent(&[descriptors()], &reading(1_124, 1_124))
            .iter()
            .all(|a| a.id != "raise-soft-descriptor-limit")
    );
}

#[test]
fn beyond_the_hard_limit_goes_what_nr_open_allows_and_the_next_ceiling_needs() {
    let all = silent(&[descriptors(), memory(10_000)], &reading(1_124, 4_096));
    let beyond = find(&all, "raise-hard-descriptor-limit");
    // 1,124 and 9,896 more are 11,020: 2^14.
    assert!(beyond.action.contains("to 16384: LimitNOFILE=16384"), "{}", beyond.action);
    assert_eq!(effect(beyond), (1_104, 11_000));
    assert_eq!(all[0].id, "raise-hard-descriptor-limit", "the greater effect comes first");
    // Nothing else is known: as far as it goes.
    let alone = silent(&[descriptors()], &reading(1_124, 4_096));
    assert_eq!(effect(find(&alone, "raise-hard-descriptor-limit")), (1_104, (1 << 20) - 20));
    let full = Reading { descriptors_max: Some(4_096), ..reading(1_124, 4_096) };
    assert!(!given(&silent(&[descriptors(), memory(10_000)], &full), "raise-hard-descriptor-limit"));
    let unknown = Reading { descriptors_max: None, ..full };
    assert!(!given(&silent(&[descriptors(), memory(10_000)], &unknown), "raise-hard-descriptor-limit"));
}

#[test]
fn workers_of_one_server_are_raised_together() {
    let mut reading = reading(1_124, 4_096);
    reading.processes.push(worker(8, 1_124, 4_096));
    let other = Ceiling { scope: process_scope(8), ..descriptors() };
    let all = silent(&[descriptors(), other, memory(10_000)], &reading);
    let soft = find(&all, "raise-soft-descriptor-limit");
    assert_eq!(effect(soft), (1_104, 4_076));
    assert!(soft.action.contains("server (process 7 and 1 more)"), "{}", soft.action);
}

#[test]
fn the_ceiling_behind_is_advised_on_as_if_the_first_were_moved() {
    let ceilings = [descriptors(), compressing(500, 120_000.0)];
    let all = advice(&ceilings, &reading(1_124, 4_096), &summary(), &Rates::default());
    assert_eq!(effect(find(&all, "raise-soft-descriptor-limit")), (1_104, 1_500));
    let behind = find(&all, "share-compression");
    // 120,000 less for each of 1,000 and 500 to come: (100 MB + 120 MB) / 80,000; what the descriptors are raised to ends first.
    assert_eq!((behind.ceiling, behind.effect.connections_max_before), (Kind::Memory, 1_500));
    assert!(behind.evidence.contains("as if raise-soft-descriptor-limit were done"), "{}", behind.evidence);
    assert!(behind.effect.connections_max_after > 1_500);
}

#[test]
fn a_saving_is_made_once_and_what_is_behind_has_one_way_on() {
    let ceilings = [compressing(300, 100_000.0), bandwidth(100)];
    let all = advice(&ceilings, &Reading::default(), &summary(), &rates(8, 0, 0, 0));
    // Pings halved leave room for 466, and memory ends at 300; then bandwidth is first once more.
    let ids: Vec<&str> = all.iter().map(|advice| advice.id.as_str()).collect();
    assert_eq!(ids, ["double-ping-interval", "empty-pings", "shrink-compression"]);
    assert_eq!(effect(&all[0]), (1_100, 1_300));
    assert_eq!(effect(&all[2]), (1_300, 1_466));
}

#[test]
fn what_gains_next_to_nothing_is_advised_on_only_where_it_clears_the_way() {
    // One more connection, and nothing moves the next one.
    let ports = ceiling(Kind::Ports, "destination:10.0.0.1:80", 2_000, 2_105, 1.0);
    assert!(silent(&[descriptors(), ports], &reading(1_124, 4_096)).is_empty());
    // One more connection, and then many.
    let table = ceiling(Kind::Descriptors, "host", 2_000, 2_105, 1.0);
    let all = silent(&[descriptors(), table, memory(5_000)], &reading(1_124, 1_124));
    let ids: Vec<&str> = all.iter().map(|advice| advice.id.as_str()).collect();
    assert_eq!(ids[..2], ["raise-hard-descriptor-limit", "raise-file-max"], "{all:#?}");
    assert_eq!(effect(&all[0]), (1_104, 1_105));
    assert!(all[1].effect.connections_max_after > 2_000);
}

#[test]
fn what_moves_nothing_is_not_advised() {
    // Both end at once: raising the one leaves the other.
    assert!(silent(&[descriptors(), memory(104)], &reading(1_124, 4_096)).is_empty());
    assert!(silent(&[], &reading(1_124, 4_096)).is_empty());
    let unknown = Ceiling { connections_left: None, ..descriptors() };
    assert!(silent(&[unknown], &reading(1_124, 4_096)).is_empty());
}

#[test]
fn the_tables_of_the_kernel_are_raised_to_what_the_next_ceiling_needs() {
    for (kind, scope, id, setting) in [
        (Kind::Descriptors, "host", "raise-file-max", "fs.file-max"),
        (Kind::Conntrack, "netns:1", "raise-conntrack-max", "nf_conntrack_max"),
        (Kind::EpollWatches, "user:0", "raise-epoll-watches", "fs.epoll.max_user_watches"),
        (Kind::MemoryMaps, "process:7", "raise-map-count", "vm.max_map_count"),
        (Kind::Tasks, "cgroup:/web", "raise-pids-max", "pids.max of /web"),
    ] {
        let table = ceiling(kind, scope, 2_000, 2_100, 1.0);
        let all = silent(&[table.clone(), memory(5_000)], &reading(1_124, 1_124));
        let raise = find(&all, id);
        // 2,100 and 4,900 more are 7,000: 2^13, so memory comes first.
        assert!(raise.action.contains(&format!("{setting} from 2100 to 8192")), "{}", raise.action);
        assert_eq!(effect(raise), (1_100, 6_000));
        let alone = silent(&[table], &reading(1_124, 1_124));
        assert!(!given(&alone, id), "who knows how far");
    }
}

#[test]
fn one_setting_raises_the_tables_of_all_namespaces() {
    let table = |scope: &str, left: u64| ceiling(Kind::Conntrack, scope, 2_000, 2_000 + left, 1.0);
    let all = silent(&[table("netns:1", 100), table("netns:2", 120), memory(5_000)], &Reading::default());
    assert_eq!(effect(find(&all, "raise-conntrack-max")), (1_100, 6_000));
    // Exempting the one namespace's ports leaves the other.
    assert_eq!(effect(find(&all, "exempt-from-conntrack")), (1_100, 1_120));
}

#[test]
fn half_the_pings_are_half_of_what_they_cost() {
    let all = advice(&[bandwidth(1_000)], &Reading::default(), &summary(), &rates(8, 0, 0, 0));
    let rarer = find(&all, "double-ping-interval");
    // 3,040 bits a connection, 760 fewer for each of 1,000 that are there and those to come.
    assert_eq!(effect(rarer), (2_000, 1_000 + (3_040 + 760) * 1_000 / 2_280));
    assert!(rarer.action.contains("to 2.00 s"), "{}", rarer.action);
    let evidence = "a connection is pinged every 1.00 s; pings, pongs and their acknowledgements are 1.52 kbit/s of the \
                    3.04 kbit/s of a connection (50%)";
    assert_eq!(rarer.evidence, evidence);
    let empty = find(&all, "empty-pings");
    // 8 bytes a second are 64 bits.
    assert_eq!(effect(empty), (2_000, 1_000 + (3_040 + 64) * 1_000 / 2_976));
    assert!(empty.evidence.contains("8.00 bytes on average"), "{}", empty.evidence);
    let bare = advice(&[bandwidth(1_000)], &Reading::default(), &summary(), &rates(0, 0, 0, 0));
    assert!(!given(&bare, "empty-pings"), "there is nothing to leave out");
}

#[test]
fn what_is_used_beyond_the_limit_is_made_up_for_first() {
    let told = |missing: u64| {
        let mut full = bandwidth(0);
        full.limit = full.limit.map(|limit| limit - missing);
        advice(&[full], &Reading::default(), &summary(), &rates(0, 0, 0, 0))
    };
    // Half the pings are 760,000 bits a second fewer.
    assert_eq!(effect(find(&told(0), "double-ping-interval")), (1_000, 1_000 + 760_000 / 2_280));
    assert_eq!(effect(find(&told(500_000), "double-ping-interval")), (1_000, 1_000 + 260_000 / 2_280));
    assert!(!given(&told(760_000), "double-ping-interval"), "nothing is left for more connections");
}

#[test]
fn packets_are_saved_by_rarer_pings_and_not_by_emptier_ones() {
    let packets = ceiling(Kind::Packets, "interface:eth0", 2_000, 4_000, 2.0);
    let packets = parts(packets, &[(Part::Keepalive, 2.0)]);
    let all = advice(&[packets], &Reading::default(), &summary(), &rates(8, 0, 0, 0));
    assert_eq!(effect(find(&all, "double-ping-interval")), (2_000, 4_000));
    assert!(!given(&all, "empty-pings"));
}

#[test]
fn buffers_are_bounded_where_they_hold_more() {
    let tcp = ceiling(Kind::Memory, "tcp", 46_000_000, 46_000_000 + 500 * 46_000, 46_000.0);
    let all = silent(&[tcp, memory(1_000)], &Reading::default());
    // 46,000 become 32,768: both ceilings gain.
    let left = (500 * 46_000 + 1_000 * 13_232) / 32_768;
    assert_eq!(effect(find(&all, "bound-socket-buffers")), (1_500, 1_000 + left));
    let small = ceiling(Kind::Memory, "tcp", 1_000, 2_000, 10.0);
    assert!(!given(&silent(&[small], &Reading::default()), "bound-socket-buffers"));
}

#[test]
fn many_connections_of_one_peer_fold_into_few() {
    let mut summary = summary();
    let mut peers = Peers::default();
    let proxy: IpAddr = "10.0.0.7".parse().expect("address");
    for number in 0..CONNECTIONS as u32 {
        // 800 of 1,000 come from one proxy, the rest from as many addresses.
        peers.add(if number % 5 < 4 { proxy } else { IpAddr::from(number.to_be_bytes()) });
    }
    let held = peers.at_least().map(|(_, count)| count).max().expect("some");
    assert!((700..=800).contains(&held), "{held}");
    summary.peers.insert(7, peers);
    let all = advice(&[descriptors(), memory(100_000)], &reading(1_124, 1_124), &summary, &Rates::default());
    let fold = find(&all, "fold-into-http2");
    let spared = held - held.div_ceil(100);
    // Each of those to come takes that share less as well.
    let left = (104 + spared) as f64 / (1.0 - spared as f64 / 1_000.0);
    assert_eq!(effect(fold), (1_104, 1_000 + left as u64));
    let evidence = format!("10.0.0.7 holds at least {held} connections; {spared} of 1,000 TCP connections");
    assert!(fold.evidence.starts_with(&evidence), "{}", fold.evidence);
    summary.peers.clear();
    let none = advice(&[descriptors(), memory(100_000)], &reading(1_124, 1_124), &summary, &Rates::default());
    assert!(!given(&none, "fold-into-http2"));
}
