//! Pings and pongs, with delays and cuts that are known.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use agent::document::{Bucket, Ping, Pinger, Role};
use anyhow::{Context as _, ensure};

use crate::traffic;
use crate::watch::Watch;
use crate::websocket;

const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// Between pings, and from a ping to its pong.
const INTERVAL: Duration = Duration::from_millis(300);
const DELAY: Duration = Duration::from_millis(80);
const PINGS: u32 = 4;

/// One connection and the agent that watches it.
struct Line {
    agent: Watch,
    port: u16,
    server: TcpStream,
    client: TcpStream,
}

/// Two pings with a delay between them, and pongs with a delay before each.
struct Case {
    name: &'static str,
    pings: [&'static [u8]; 2],
    pongs: &'static [&'static [u8]],
    /// What is known then: how many were missed, and how many delays the last round trip took.
    missed: u64,
    delays: Option<u32>,
}

pub(crate) fn interval_and_round_trip_are_those_of_the_peers() -> anyhow::Result<()> {
    for (pinger, name) in [(Role::Server, Pinger::Server), (Role::Client, Pinger::Client)] {
        let mut line = Line::open()?;
        let (mut sent, mut round_trips) = (Vec::new(), Vec::new());
        for number in 0..PINGS {
            let begun = Instant::now();
            sent.push(begun);
            line.say(pinger, PING, &number.to_be_bytes())?;
            std::thread::sleep(DELAY);
            line.say(opposite(pinger), PONG, &number.to_be_bytes())?;
            round_trips.push(begun.elapsed().as_secs_f64());
            std::thread::sleep(INTERVAL.saturating_sub(begun.elapsed()));
        }
        let least = sent[sent.len() - 1] - sent[sent.len() - 2];
        line.agent.settle()?;
        let (delay, last) = (DELAY.as_secs_f64(), round_trips[round_trips.len() - 1]);
        for role in [Role::Server, Role::Client] {
            let ping = line.ping(role)?;
            let interval = ping.interval_seconds.context("no interval")?;
            // What the ping before the last took to be written is within the interval at one end and not at the other.
            let slack = 0.05;
            ensure!((interval - least.as_secs_f64()).abs() < slack, "{role:?}: {interval} s, not {least:?}");
            let rtt = ping.rtt_seconds.context("no round trip")?;
            ensure!(delay <= rtt && rtt <= last, "{role:?}: {rtt} s, between {delay} and {last}");
            ensure!((ping.missed, ping.unsolicited) == (Some(0), Some(0)), "{role:?}: {ping:?}");
            ensure!(ping.sent_by == Some(name), "{role:?}: {ping:?}");
        }
        let longest = round_trips.iter().copied().fold(0.0, f64::max);
        line.histograms(pinger, PINGS.into(), delay, longest)?;
    }
    Ok(())
}

pub(crate) fn who_pings_is_told() -> anyhow::Result<()> {
    let mut line = Line::open()?;
    for role in [Role::Server, Role::Client] {
        line.say(role, 0x82, b"no ping")?;
    }
    line.expect("nobody", |ping| ping.sent_by.is_none() && ping.interval_seconds.is_none())?;
    line.say(Role::Client, PING, b"one")?;
    line.expect("the client", |ping| {
        ping.sent_by == Some(Pinger::Client) && ping.interval_seconds.is_none()
    })?;
    line.say(Role::Server, PING, b"two")?;
    line.expect("both", |ping| ping.sent_by == Some(Pinger::Both) && ping.rtt_seconds.is_none())
}

pub(crate) fn missed_and_unsolicited_pongs_are_counted() -> anyhow::Result<()> {
    let mut line = Line::open()?;
    for payload in [b"1", b"2", b"3", b"4"] {
        line.say(Role::Server, PING, payload)?;
    }
    line.say(Role::Client, PONG, b"4")?;
    line.expect("three missed", |ping| (ping.missed, ping.unsolicited) == (Some(3), Some(0)))?;
    // To nothing that is outstanding: too old, answered before, never asked.
    for (number, payload) in [&b"1"[..], b"4", b"", b"44"].into_iter().enumerate() {
        line.say(Role::Client, PONG, payload)?;
        let unsolicited = Some(number as u64 + 1);
        line.expect("unsolicited", |ping| (ping.missed, ping.unsolicited) == (Some(3), unsolicited))?;
    }
    // The peer's own: a server may say it is there.
    line.say(Role::Server, PONG, b"")?;
    line.expect("unsolicited both ways", |ping| ping.unsolicited == Some(5))?;
    line.say(Role::Server, PING, b"5")?;
    line.expect("the last one may still come", |ping| ping.missed == Some(3))
}

pub(crate) fn pongs_are_matched_by_payload() -> anyhow::Result<()> {
    let cases = [
        Case { name: "in order", pings: [b"a", b"b"], pongs: &[b"a", b"b"], missed: 0, delays: Some(2) },
        Case {
            name: "the second first",
            pings: [b"a", b"b"],
            pongs: &[b"b", b"a"],
            missed: 0,
            delays: Some(3),
        },
        Case { name: "the second only", pings: [b"a", b"b"], pongs: &[b"b"], missed: 1, delays: Some(1) },
        Case {
            name: "equal ones",
            pings: [b"same", b"same"],
            pongs: &[b"same", b"same"],
            missed: 0,
            delays: None,
        },
        Case { name: "equal ones, one pong", pings: [b"", b""], pongs: &[b""], missed: 1, delays: None },
    ];
    for Case { name, pings, pongs, missed, delays } in cases {
        let mut line = Line::open()?;
        let begun = Instant::now();
        line.say(Role::Server, PING, pings[0])?;
        std::thread::sleep(DELAY);
        line.say(Role::Server, PING, pings[1])?;
        for pong in pongs {
            std::thread::sleep(DELAY);
            line.say(Role::Client, PONG, pong)?;
        }
        // What a busy host added to the delays.
        let slack = begun.elapsed().saturating_sub(DELAY * (1 + pongs.len() as u32)).as_secs_f64();
        let known = (Some(missed), Some(0));
        line.expect(name, |ping| {
            let round_trip = match (ping.rtt_seconds, delays) {
                (Some(told), Some(delays)) => {
                    (DELAY * delays).as_secs_f64() <= told
                        && told < (DELAY * (delays + 1)).as_secs_f64() + slack
                }
                (told, delays) => told.is_none() && delays.is_none(),
            };
            (ping.missed, ping.unsolicited) == known && round_trip
        })?;
        // Whatever was, the next ping and its pong are unambiguous, if no equal one is outstanding.
        let begun = Instant::now();
        line.say(Role::Server, PING, pings[1])?;
        std::thread::sleep(DELAY);
        line.say(Role::Client, PONG, pings[1])?;
        let most = begun.elapsed();
        line.expect(&format!("after {name}"), |ping| {
            let told = ping.rtt_seconds.unwrap_or_default();
            DELAY.as_secs_f64() <= told
                && told <= most.as_secs_f64()
                && (ping.missed, ping.unsolicited) == known
        })?;
    }
    Ok(())
}

pub(crate) fn any_length_and_any_cut_is_matched() -> anyhow::Result<()> {
    let mut line = Line::open()?;
    let lengths = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 100, 124, 125];
    let mut answered = 0;
    for piece in [usize::MAX, 1, 3, 17] {
        for length in lengths {
            for pinger in [Role::Server, Role::Client] {
                let mut payload: Vec<u8> = (0..length).map(|i| i as u8 ^ 0x5a).collect();
                // Two outstanding ones that differ in their last byte alone, where there is one; the first is not answered.
                if let Some(last) = payload.last_mut() {
                    *last = 1;
                    let decoy = payload.clone();
                    line.say_in_pieces(pinger, PING, &decoy, piece)?;
                    payload[length - 1] = 2;
                }
                line.say_in_pieces(pinger, PING, &payload, piece)?;
                line.say_in_pieces(opposite(pinger), PONG, &payload, piece)?;
                answered += 1;
            }
        }
    }
    // A connection keeps no count of its own of pongs that answered; its listener does.
    let decoys = 2 * 4 * (lengths.len() as u64 - 1);
    line.expect("all matched", |ping| {
        (ping.missed, ping.unsolicited) == (Some(decoys), Some(0)) && ping.rtt_seconds.is_some()
    })?;
    let tick = line.agent.settle()?;
    for role in [Role::Server, Role::Client] {
        let listener = traffic::listener(&tick.listeners, line.port, role)?;
        let counts = (total(&listener.ping_rtt), total(&listener.pong_delay));
        ensure!(counts == (answered / 2, answered / 2), "{answered} were answered: {listener:?}");
        let pongs = (listener.received.pong, listener.sent.pong);
        ensure!(pongs == (Some(answered / 2), Some(answered / 2)), "{listener:?}");
        let bytes: usize = 4 * (3 * lengths.iter().sum::<usize>());
        let control = (listener.received.control_bytes, listener.sent.control_bytes);
        ensure!(control == (Some(bytes as u64), Some(bytes as u64)), "{listener:?}, not {bytes} bytes");
    }
    Ok(())
}

impl Line {
    fn open() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let agent = Watch::attach(&[port], &[])?;
        let (server, client) = websocket::pair(&listener)?;
        for stream in [&server, &client] {
            stream.set_nodelay(true)?;
        }
        Ok(Self { agent, port, server, client })
    }

    /// Sends a frame and waits until it has arrived.
    fn say(&mut self, from: Role, first: u8, payload: &[u8]) -> anyhow::Result<()> {
        self.say_in_pieces(from, first, payload, usize::MAX)
    }

    fn say_in_pieces(&mut self, from: Role, first: u8, payload: &[u8], piece: usize) -> anyhow::Result<()> {
        let (source, target, mask) = match from {
            Role::Server => (&mut self.server, &mut self.client, None),
            Role::Client => (&mut self.client, &mut self.server, Some([0x9d, 0x01, 0xfe, 0x42])),
        };
        let frame = websocket::frame(first, payload, mask);
        for piece in frame.chunks(piece.min(frame.len())) {
            source.write_all(piece)?;
            // Read at once, so that each piece is a packet.
            target.read_exact(&mut vec![0; piece.len()])?;
        }
        Ok(())
    }

    fn ping(&self, role: Role) -> anyhow::Result<Ping> {
        let mut all = self.agent.latest.values();
        Ok(all.find(|connection| connection.role == role).with_context(|| format!("no {role:?}"))?.ping)
    }

    /// Both ends say so.
    fn expect(&mut self, what: &str, holds: impl Fn(&Ping) -> bool) -> anyhow::Result<()> {
        self.agent.settle()?;
        for role in [Role::Server, Role::Client] {
            let ping = self.ping(role)?;
            ensure!(holds(&ping), "{what}, as {role:?}: {ping:?}");
        }
        Ok(())
    }

    /// The pinger's end has all round trips, the other end all delays, in buckets that may hold them.
    fn histograms(&mut self, pinger: Role, number: u64, least: f64, most: f64) -> anyhow::Result<()> {
        let tick = self.agent.settle()?;
        for role in [Role::Server, Role::Client] {
            let listener = traffic::listener(&tick.listeners, self.port, role)?;
            let (filled, empty) = match role == pinger {
                true => (&listener.ping_rtt, &listener.pong_delay),
                false => (&listener.pong_delay, &listener.ping_rtt),
            };
            ensure!(total(filled) == number && empty.is_empty(), "{role:?}: {listener:?}");
            for bucket in filled {
                let bound = bucket.below_seconds.context("a bucket without a bound")?;
                ensure!(least < bound && bound / 2.0 <= most, "{role:?}: {bucket:?} for {least} to {most} s");
            }
        }
        Ok(())
    }
}

fn total(buckets: &[Bucket]) -> u64 {
    buckets.iter().map(|bucket| bucket.count).sum()
}

fn opposite(role: Role) -> Role {
    if role == Role::Server { Role::Client } else { Role::Server }
}
