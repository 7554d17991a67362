//! The load generator's shapes of load, held against what a server of another make saw.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use server::load::report::Report;

use crate::support::{LOAD, Process, TestServer};
use crate::witness::{Manner, Witness};

/// Runs the load to its end; `arguments` in one string.
fn load(url: &str, arguments: &str) -> Report {
    start(url, arguments).end().report()
}

fn start(url: &str, arguments: &str) -> Process {
    let arguments: Vec<&str> = ["--url", url, "--json"].into_iter().chain(arguments.split(' ')).collect();
    Process::start(LOAD, &arguments)
}

#[test]
fn a_stall_of_the_client_is_charged_to_the_messages_it_delayed() {
    let witness = Witness::start(Manner::default());
    let load = start(&witness.url, "--connections 20 --duration 2s --message-rate 50");
    thread::sleep(Duration::from_millis(700));
    load.signal(Signal::STOP);
    thread::sleep(Duration::from_millis(800));
    load.signal(Signal::CONT);
    let report = load.end().report();
    // Nothing was left out, and what was due within the stall was late by what was left of it: two fifths of all.
    assert_eq!((report.sent.text, witness.seen().sizes.len()), (2000, 2000));
    let echo = report.echo_seconds.unwrap();
    assert!(echo.max > 0.7 && echo.p90 > 0.4, "{echo:?}");
}

#[test]
fn a_stall_of_the_server_is_charged_to_the_messages_it_delayed() {
    let server = TestServer::start(&[]);
    let load = start(&server.url, "--connections 20 --duration 2s --message-rate 50");
    thread::sleep(Duration::from_millis(700));
    server.process.signal(Signal::STOP);
    thread::sleep(Duration::from_millis(800));
    server.process.signal(Signal::CONT);
    let echo = load.end().report().echo_seconds.unwrap();
    assert_eq!(echo.count, 2000);
    assert!(echo.max > 0.7 && echo.p90 > 0.4, "{echo:?}");
}

#[test]
fn poisson_arrivals_depend_on_the_seed_alone() {
    let witness = Witness::start(Manner::default());
    let sent = |seed: &str| {
        let shape =
            "--connections 10 --duration 1s --message-rate 50 --arrival poisson --message-size 16..999";
        let report = load(&witness.url, &format!("{shape} --seed {seed}"));
        assert_eq!(report.sent, {
            let mut received = report.received;
            received.ping = 0;
            received
        });
        report.sent.text
    };
    let (one, again, other) = (sent("7"), sent("7"), sent("8"));
    assert_eq!(one, again);
    assert_ne!(one, other);
    // Within five deviations.
    assert!((400..600).contains(&one), "{one}");
}

#[test]
fn sizes_are_those_asked_for() {
    let witness = Witness::start(Manner::default());
    load(&witness.url, "--connections 5 --duration 1s --message-rate 100 --message-size 20..60");
    let sizes = witness.seen().sizes;
    assert!(sizes.len() == 500 && sizes.iter().all(|size| (20..=60).contains(size)));
    assert!((20..=60).all(|size| sizes.contains(&size)), "{sizes:?}");

    let witness = Witness::start(Manner::default());
    load(&witness.url, "--connections 5 --duration 1s --message-rate 40 --message-size 17B,3KiB --binary");
    let sizes = witness.seen().sizes;
    let small = sizes.iter().filter(|size| **size == 17).count();
    assert_eq!(sizes.iter().filter(|size| **size == 3072).count(), 200 - small);
    assert!((60..140).contains(&small), "{small}");
}

#[test]
fn a_closed_loop_has_one_message_on_its_way() {
    let witness = Witness::start(Manner { delay: Duration::from_millis(20), mute: 0 });
    let report = load(&witness.url, "--connections 5 --duration 1s --closed-loop");
    let seen = witness.seen();
    assert_eq!((seen.most_at_once, seen.sizes.len() as u64), (1, report.sent.text));
    assert_eq!(report.sent.text, report.received.text);
    // 50 a second each at most; the machine may be busy.
    assert!((60..=255).contains(&report.sent.text), "{}", report.sent.text);
    let rate = report.echoes_per_second.unwrap();
    assert!(rate <= report.received.text as f64 && rate > 0.9 * report.received.text as f64 - 5.0, "{rate}");
    assert!(report.echo_seconds.unwrap().p50 >= 0.02);
}

#[test]
fn slow_readers_read_slowly_and_completely() {
    let witness = Witness::start(Manner::default());
    let shape = "--connections 4 --duration 2s --message-rate 10 --message-size 4KiB --read-rate 20KiB";
    let report = load(&witness.url, &format!("{shape} --slow-readers 100%"));
    // 40 KiB a second are to come to each, 20 KiB are read: at the end the oldest unread is a second old.
    let echo = report.echo_seconds.unwrap();
    assert!(echo.max > 0.7 && echo.p50 > 0.25, "{echo:?}");
    assert_eq!((report.sent.text, report.received.text, report.received.close), (80, 80, 4));
    let report = load(&witness.url, &format!("{shape} --slow-readers 0"));
    assert!(report.echo_seconds.unwrap().p50 < 0.2);
}

#[test]
fn those_aborted_are_reset_and_counted() {
    let witness = Witness::start(Manner::default());
    let report = load(&witness.url, "--connections 100 --duration 300ms --message-rate 5 --abort 0.5");
    let seen = witness.seen();
    let aborted = report.connections.aborted;
    assert!((25..75).contains(&aborted), "{aborted}");
    assert_eq!((seen.resets, seen.closes), (aborted, 100 - aborted));
    assert!(report.errors.is_empty(), "{:?}", report.errors);
}

#[test]
fn churn_closes_and_opens_again_at_its_rate() {
    let witness = Witness::start(Manner::default());
    let report = load(&witness.url, "--connections 30 --duration 2s --churn 40 --abort 25% --message-rate 1");
    let (seen, connections) = (witness.seen(), report.connections);
    assert!((70..=81).contains(&connections.recycled), "{connections:?}");
    assert_eq!((connections.opened, connections.failed), (30 + connections.recycled, 0));
    assert_eq!((seen.accepted, seen.resets), (connections.opened, connections.aborted));
    assert_eq!((seen.closes, report.sent.close), (connections.opened - connections.aborted, seen.closes));
    assert_eq!(report.handshake_seconds.unwrap().count, connections.opened);
}

#[test]
fn after_a_storm_everybody_is_back() {
    let witness = Witness::start(Manner::default());
    let report = load(&witness.url, "--connections 200 --duration 100ms --storm --ping-all");
    let (seen, storm) = (witness.seen(), report.storm.unwrap());
    assert_eq!((storm.dropped, storm.returned), (200, 200));
    assert_eq!((seen.accepted, seen.resets, seen.closes), (400, 200, 200));
    let times = storm.return_seconds.unwrap();
    assert!(times.count == 200 && times.max <= storm.seconds.unwrap() + 1e-3, "{storm:?}");
    assert_eq!((seen.pings, report.ping_all.unwrap().answered), (200, 200));
}

#[test]
fn who_does_not_answer_a_ping_is_missed() {
    let witness = Witness::start(Manner { mute: 3, ..Manner::default() });
    let load = start(&witness.url, "--connections 50 --duration 0 --linger 1h --ping-all --message-all");
    thread::sleep(Duration::from_millis(500));
    load.signal(Signal::INT);
    let report = load.end().report();
    let (ping, message) = (report.ping_all.unwrap(), report.message_all.unwrap());
    assert_eq!((ping.asked, ping.answered, message.asked, message.answered), (50, 47, 50, 50));
    assert_eq!((ping.round_trip_seconds.unwrap().count, report.received.pong), (47, 47));
    let seen = witness.seen();
    assert_eq!((seen.pings, seen.sizes.len()), (50, 50));
    assert_eq!((report.sent.ping, report.sent.text), (50, 50));
}

#[test]
fn several_servers_share_the_connections() {
    let witnesses = [Witness::start(Manner::default()), Witness::start(Manner::default())];
    let second = format!("--url {} --connections 600 --duration 0 --first-source 9", witnesses[1].url);
    let report = load(&witnesses[0].url, &second);
    assert_eq!(report.urls, [witnesses[0].url.clone(), witnesses[1].url.clone()]);
    for witness in witnesses {
        let seen = witness.seen();
        assert_eq!((seen.accepted, seen.closes), (300, 300));
        let expected = ["127.0.0.10", "127.0.0.11", "127.0.0.12"].map(|source| source.parse().unwrap());
        assert_eq!(seen.sources, expected.into());
    }
}

#[test]
fn thousands_close_in_good_order() {
    let server = TestServer::start(&[]);
    let report = load(&server.url, "--connections 3000 --rate 20000 --duration 0");
    assert_eq!((report.sent.close, report.received.close), (3000, 3000));
    assert!(report.errors.is_empty(), "{:?}", report.errors);
}

#[test]
fn an_idle_connection_costs_next_to_nothing() {
    let server = TestServer::start(&[]);
    let resident = |connections: &str| {
        let shape = format!("--rate 20000 --duration 0 --linger 1h --announce --connections {connections}");
        let load = start(&server.url, &shape);
        assert!(load.error_line().ends_with("connections opened"));
        thread::sleep(Duration::from_millis(500));
        let status = std::fs::read_to_string(format!("/proc/{}/status", load.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
    };
    let bytes = (resident("5100") - resident("100")) / 5000.0;
    assert!(bytes < 250.0, "{bytes} bytes an idle connection");
}

#[test]
fn a_silent_server_does_not_hold_a_probe() {
    let server = TestServer::start(&[]);
    let load = start(&server.url, "--connections 3 --duration 0 --linger 1h --ping-all");
    thread::sleep(Duration::from_millis(500));
    server.process.signal(Signal::STOP);
    // Its threads stop one by one.
    thread::sleep(Duration::from_millis(300));
    load.signal(Signal::INT);
    thread::sleep(Duration::from_millis(300));
    // The second ends the probe, the third would end the closing.
    load.signal(Signal::INT);
    let asked = Instant::now();
    let report = load.end().report();
    assert!(asked.elapsed() < Duration::from_secs(5));
    let probe = report.ping_all.unwrap();
    assert_eq!((probe.asked, probe.answered, report.sent.ping), (3, 0, 3));
    assert!(probe.seconds.is_none() && probe.round_trip_seconds.is_none());
}
