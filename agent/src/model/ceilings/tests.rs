//! Scenarios with numbers that can be checked by hand.

use super::fixture::{Past, all, compute, find, interface, listener};
use super::*;
use crate::document::{Descriptors, Part, Traffic};
use crate::model::{
    CgroupMemory, Holder, HostDescriptors, HostMemory, Interface, Known, Lineages, LinkSpeed, Member,
    ProcessReading, TcpMemory, advise,
};

const MIB: u64 = 1 << 20;

fn reading() -> Reading {
    Reading {
        memory: Some(HostMemory { total: 1000 * MIB, available: 600 * MIB }),
        tcp: Some(TcpMemory { used: 0, pressure: 100 * MIB }),
        descriptors: Some(HostDescriptors { allocated: 1000, max: 100_000 }),
        interfaces: vec![Interface { speed: LinkSpeed::Known(1_000_000, "the driver"), ..interface() }],
        processes: vec![ProcessReading {
            pid: 7,
            comm: "server".into(),
            cgroup: Some("/web".into()),
            descriptors: Descriptors { open: Some(520), soft_limit: Some(1024), hard_limit: Some(4096) },
            resident_bytes: Some(20 * MIB),
            anonymous_bytes: Some(10 * MIB),
            ..ProcessReading::default()
        }],
        ..Reading::default()
    }
}

fn summary() -> Summary {
    let holder =
        Holder { connections: 500, kernel_bytes: 500 * 4096, fixed_bytes: 500 * 4096, ..Holder::default() };
    Summary {
        holders: [(7, holder)].into(),
        fixed_known: true,
        interfaces: [(2, 500)].into(),
        ..Summary::default()
    }
}

#[test]
fn the_soft_descriptor_limit_comes_first_and_says_how_many_are_left() {
    let (reading, summary) = (reading(), summary());
    let all = compute(&reading, &summary);
    let first = &all[0];
    assert_eq!((first.kind, first.scope.as_str(), first.first), (Kind::Descriptors, "process:7", true));
    assert_eq!((first.connections_left, first.connections_max), (Some(504), Some(1004)));
    assert_eq!(all.iter().filter(|ceiling| ceiling.first).count(), 1);
    let known = Known { ceilings: &all, reading: &reading, summary: &summary, rates: &Rates::default() };
    let advice = advise(&known);
    assert_eq!(advice[0].effect.connections_max_before, 1004);
    assert_eq!(advice[0].effect.connections_max_after, 1004 + 3072);
}

#[test]
fn memory_prices_kernel_and_process_together() {
    let (reading, summary) = (reading(), summary());
    let all = compute(&reading, &summary);
    let host = find(&all, Kind::Memory, "host");
    // 4096 kernel bytes, and 10 MiB of anonymous memory shared by 500 connections.
    let cost = 4096.0 + 10.0 * MIB as f64 / 500.0;
    assert_eq!(host.cost_per_connection, Some(cost));
    assert_eq!(host.connections_left, Some((600.0 * MIB as f64 / cost) as u64));
}

#[test]
fn a_cgroup_limit_below_the_hosts_is_a_ceiling_of_its_own() {
    let (mut reading, summary) = (reading(), summary());
    reading.processes[0].cgroup_memory =
        Some(CgroupMemory { path: "/web".into(), used: 30 * MIB, limit: 32 * MIB });
    let all = compute(&reading, &summary);
    let cgroup = find(&all, Kind::Memory, "cgroup:/web");
    assert_eq!(cgroup.level, Level::Near);
    assert!(cgroup.first, "2 MiB hold fewer connections than 504 descriptors");
}

#[test]
fn processes_under_one_limited_ancestor_share_one_ceiling() {
    let (mut reading, mut summary) = (reading(), summary());
    let limit = CgroupMemory { path: "/slice".into(), used: 30 * MIB, limit: 64 * MIB };
    let mut other = reading.processes[0].clone();
    other.pid = 8;
    reading.processes.push(other);
    for process in &mut reading.processes {
        process.cgroup_memory = Some(limit.clone());
    }
    summary.holders.insert(8, summary.holders[&7]);
    let all = compute(&reading, &summary);
    assert_eq!(find(&all, Kind::Memory, "cgroup:/slice").connections, 1000);
    assert_eq!(all.iter().filter(|ceiling| ceiling.scope.starts_with("cgroup:")).count(), 1);
}

#[test]
fn without_slab_sizes_memory_has_no_price() {
    let (reading, mut summary) = (reading(), summary());
    summary.fixed_known = false;
    let host = compute(&reading, &summary);
    let host = find(&host, Kind::Memory, "host");
    assert_eq!((host.cost_per_connection, host.connections_left), (None, None));
    assert!(host.basis.contains("/proc/slabinfo"));
}

#[test]
fn what_cannot_be_known_is_absent_with_a_reason() {
    let mut reading = reading();
    reading.memory = None;
    reading.interfaces[0].speed = LinkSpeed::Unknown("eth0 reports no speed; give --nic-speed".into());
    let all = compute(&reading, &Summary { interfaces: [(2, 1)].into(), ..Summary::default() });
    let host = find(&all, Kind::Memory, "host");
    assert_eq!((host.used, host.limit, host.utilization, host.level), (None, None, None, Level::Unknown));
    assert!(host.basis.contains("/proc/meminfo"));
    let interface = find(&all, Kind::Bandwidth, "interface:eth0");
    assert_eq!((interface.limit, interface.connections_left), (None, None));
    assert!(interface.basis.contains("--nic-speed"));
    let tcp = find(&all, Kind::Memory, "tcp");
    assert_eq!((tcp.cost_per_connection, tcp.connections_left), (None, None));
}

#[test]
fn bandwidth_is_priced_in_wire_bits_of_the_busier_direction() {
    let (before, summary) = (reading(), summary());
    let mut now = before.clone();
    now.interfaces[0].transmitted_bytes = 50_000;
    now.interfaces[0].transmitted_packets = 500;
    let mut rates = Rates::default();
    for (second, packets, bytes) in [(0, 100, 4_000), (2, 1_100, 64_000)] {
        let sent = Traffic { packets, packet_bytes: bytes, ..Traffic::default() };
        let listener = crate::document::Listener { sent, ..listener(1, 80, 500) };
        rates.observe(Duration::from_secs(second), [&listener].into_iter());
    }
    let all = all(
        Some(Earlier {
            reading: &before,
            elapsed: Duration::from_secs(2),
            opened: 500,
            mean_connections: 500.0,
        }),
        &now,
        &[],
        &Past { rates, ..Past::default() },
        &summary,
    );
    let interface = find(&all, Kind::Bandwidth, "interface:eth0");
    // The counters leave out 24 bytes of each packet on Ethernet.
    assert_eq!(interface.used, Some((50_000 + 500 * 24) * 8 / 2));
    // 60,000 bytes and 1,000 packets of 38 bytes framing in 2 s over 500 connections.
    let cost = (60_000.0 + 38_000.0) * 8.0 / 2.0 / 500.0;
    assert_eq!(interface.cost_per_connection, Some(cost));
    assert_eq!(interface.connections_left, Some(((1_000_000.0 - 248_000.0) / cost) as u64));
    assert_eq!(interface.parts.iter().map(|part| part.cost).sum::<f64>(), cost);
}

#[test]
fn connections_that_came_meanwhile_are_in_the_count_and_not_yet_in_the_rate() {
    let steady = interface_with(500.0);
    let rising = interface_with(450.0);
    assert_eq!((steady.used, steady.connections_max), (rising.used, Some(1_000)));
    assert_eq!(rising.connections_max, Some(950), "a tenth of them is not measured yet");
}

/// 500 connections of 1,000 bits a second each, at a limit of a million, and how many there were on the average while the rate
/// was measured.
fn interface_with(mean_connections: f64) -> Ceiling {
    let (before, summary) = (reading(), summary());
    let mut now = before.clone();
    now.interfaces[0].transmitted_bytes = 125_000;
    let mut rates = Rates::default();
    for (second, bytes) in [(0, 0), (2, 125_000)] {
        let sent = Traffic { packet_bytes: bytes, ..Traffic::default() };
        let listener = crate::document::Listener { sent, ..listener(1, 80, 500) };
        rates.observe(Duration::from_secs(second), [&listener].into_iter());
    }
    let earlier =
        Earlier { reading: &before, elapsed: Duration::from_secs(2), opened: 500, mean_connections };
    let all = all(Some(earlier), &now, &[], &Past { rates, ..Past::default() }, &summary);
    find(&all, Kind::Bandwidth, "interface:eth0").clone()
}

fn observed(kind: Kind, scope: &str, used: impl Fn(u64) -> u64) -> Costs {
    let mut costs = Costs::default();
    for count in 1..=500 {
        costs.begin();
        costs.observe(kind, scope, 0, (count, 0), used(count));
    }
    costs
}

fn priced(reading: &Reading, costs: &Costs) -> Vec<Ceiling> {
    all(None, reading, &[], &Past { costs: costs.clone(), ..Past::default() }, &summary())
}

#[test]
fn a_server_that_takes_three_descriptors_a_connection_is_priced_at_three() {
    let mut reading = reading();
    reading.processes[0].descriptors =
        Descriptors { open: Some(1_520), soft_limit: Some(4096), hard_limit: Some(4096) };
    let costs = observed(Kind::Descriptors, "process:7", |count| 20 + 3 * count + count % 7);
    let all = priced(&reading, &costs);
    let process = find(&all, Kind::Descriptors, "process:7");
    assert_eq!(process.cost_per_connection, Some(3.0), "noise is none of it");
    assert_eq!(process.connections_left, Some((4096 - 1520) / 3));
    assert!(process.basis.contains("slope") && process.cost_samples > Some(10), "{}", process.basis);
}

#[test]
fn a_cgroups_own_slope_stands_above_the_sum_of_parts() {
    let mut reading = reading();
    reading.processes[0].cgroup_memory =
        Some(CgroupMemory { path: "/web".into(), used: 30 * MIB, limit: 80 * MIB });
    let costs = observed(Kind::Memory, "cgroup:/web", |count| 20 * MIB + count * MIB / 50);
    let all = priced(&reading, &costs);
    let cgroup = find(&all, Kind::Memory, "cgroup:/web");
    assert_eq!(cgroup.connections_left, Some(2500), "{:?}", cgroup.cost_range);
    let part = |part| cgroup.parts.iter().find(|known| known.part == part).map(|known| known.cost);
    assert_eq!(part(Part::KernelFixed), Some(4096.0));
    assert_eq!(part(Part::KernelBuffers), Some(0.0));
    assert_eq!(part(Part::Compression), None, "nobody negotiated it");
}

#[test]
fn memory_that_is_left_over_is_room() {
    let mut reading = reading();
    // 10 MiB are what 1,000 connections took; 500 are left and none of it was given back.
    let costs = observed(Kind::Memory, "process:7", |count| count * 2 * 10 * MIB / 1000);
    let full = find(&priced(&reading, &costs), Kind::Memory, "host").connections_left;
    let mut more = costs.clone();
    more.begin();
    more.observe(Kind::Memory, "process:7", 0, (1000, 0), 20 * MIB);
    reading.processes[0].anonymous_bytes = Some(20 * MIB);
    let left = find(&priced(&reading, &more), Kind::Memory, "host").connections_left;
    let cost = 4096.0 + 10.0 * MIB as f64 / 500.0;
    let extra = left.expect("known") - full.expect("known");
    assert!((extra as f64 - 10.0 * MIB as f64 / cost).abs() < 15.0, "{extra} more");
}

#[test]
fn growth_gives_every_ceiling_its_time() {
    let (reading, summary) = (reading(), summary());
    let (mut growth, mut lineages) = (Growths::default(), Lineages::default());
    for second in 0..20 {
        let at = Duration::from_secs(second);
        growth.observe_total(at, 600 + 20 * second);
        let connections = 300 + 10 * second;
        lineages.observe(at, &[Member { pid: 7, comm: "server", cgroup: Some("/web"), connections }]);
        growth.observe_processes(at, &lineages, [(7, connections)].into_iter());
    }
    let all = all(None, &reading, &[], &Past { growth, ..Past::default() }, &summary);
    assert!((all[0].seconds_left.expect("growing") - 50.4).abs() < 1e-6);
    let range = all[0].seconds_left_range.expect("growing");
    assert!(range.least <= 50.4 && range.most.is_some_and(|most| most >= 50.4), "{range:?}");
    assert_eq!(all[0].trend, Trend::Growing);
}
