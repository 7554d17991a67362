use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::task::{Context, Waker};

use rustix::event::Timespec;

use super::super::table::Idle;
use super::*;

fn options(ping_interval: Duration) -> Options {
    Options {
        ping_interval,
        ping_payload: 8,
        pong_timeout: None,
        max_connections: usize::MAX,
        handshake_timeout: Duration::from_secs(1),
        max_message: 1 << 20,
        drain_timeout: Duration::from_secs(1),
        idle_after: Duration::from_millis(100),
        deflate: None,
        http2_idle_timeout: Duration::from_secs(1),
        http2_max_streams: 1,
    }
}

/// Runs `test` with a roster, which wants a runtime.
pub(super) fn with_roster(ping_interval: Duration, test: impl FnOnce(&Roster)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test(&Roster::new(&options(ping_interval)).unwrap()) });
}

/// Both ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (server, client)
}

fn parked(socket: TcpStream, beat: &Beat, place: Option<&Place>) -> Parked {
    let idle = Idle {
        pings: 0,
        joined: beat.joined,
        unanswered: 0,
        cursor: place.map_or(0, |place| place.cursor),
        since: 0,
        patience: 0,
        path: if place.is_some() { Path::Broadcast } else { Path::Echo },
        deflate: None,
    };
    Parked { socket: socket.into(), idle }
}

/// What the epoll set reports now, handled.
fn attend(roster: &Roster) -> Vec<Woken> {
    let mut events = Vec::with_capacity(8);
    let soon = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    epoll::wait(roster.epoll.get_ref(), rustix::buffer::spare_capacity(&mut events), Some(&soon)).unwrap();
    events.iter().filter_map(|event| roster.attend(event, &mut [0; 64])).collect()
}

fn a_whole_turn(roster: &Roster) -> Vec<Woken> {
    let mut woken = Vec::new();
    let mut from = Some(roster.begin_turn());
    while let Some(descriptor) = from {
        from = roster.ping(descriptor, &mut woken);
    }
    woken
}

#[test]
fn a_round_pings_everyone_once_evenly_except_newcomers() {
    with_roster(Duration::from_secs(1), |roster| {
        assert_eq!((roster.slots, roster.tick), (100, Some(Duration::from_millis(10))));
        let beats: Vec<_> =
            (0..300).map(|descriptor| roster.join(Member::socket(descriptor), Path::Echo).0).collect();
        let cx = Context::from_waker(Waker::noop());
        for turn in 0..200 {
            assert!(a_whole_turn(roster).is_empty());
            let due = beats.iter().filter(|beat| beat.pulse.take(&cx) == PING).count();
            assert_eq!(due, if turn < 50 { 0 } else { 3 }, "turn {turn}");
        }
    });
}

#[test]
fn what_waits_for_a_connection_keeps_it_from_being_parked() {
    with_roster(Duration::ZERO, |roster| {
        let (server, _client) = connection();
        let descriptor = server.as_raw_fd();
        let (beat, mut place) = roster.join(Member::socket(descriptor), Path::Broadcast);
        let mut speaker = roster.join(Member::socket(1_000), Path::Broadcast).1.unwrap();
        let mut socket = OwnedFd::from(server);
        for bit in [PING, MAIL, DRAIN] {
            beat.pulse.raise(bit);
            socket = roster
                .park(&beat, parked(socket.into(), &beat, place.as_ref()), Box::default())
                .unwrap_err()
                .0;
            beat.pulse.take(&Context::from_waker(Waker::noop()));
        }
        // Even if it has been told of the message and has not fetched it.
        roster.publish(Member::socket(1_000), &mut speaker, Message::text("x"));
        beat.pulse.take(&Context::from_waker(Waker::noop()));
        socket =
            roster.park(&beat, parked(socket.into(), &beat, place.as_ref()), Box::default()).unwrap_err().0;
        assert!(!beat.gone());
        assert_eq!(
            roster.next_message(Member::socket(descriptor), place.as_mut().unwrap()),
            Some(Message::text("x"))
        );
        // That it has been quiet for long does not keep it.
        beat.pulse.raise(PARK);
        roster.park(&beat, parked(socket.into(), &beat, place.as_ref()), Box::default()).unwrap();
        assert!(beat.gone());
    });
}

#[test]
fn what_arrived_before_it_was_parked_is_not_overlooked() {
    with_roster(Duration::ZERO, |roster| {
        let (server, mut client) = connection();
        client.write_all(&[0x81, 0x80, 0, 0, 0, 0, 0x81]).unwrap();
        let (beat, _) = roster.join(Member::socket(server.as_raw_fd()), Path::Echo);
        roster.park(&beat, parked(server, &beat, None), Box::default()).unwrap();
        let woken = attend(roster);
        assert_eq!(woken[0].tail, [0x81, 0x80, 0, 0, 0, 0, 0x81]);
        assert!(attend(roster).is_empty());
    });
}

#[test]
fn parked_connections_are_pinged_until_they_miss_too_many() {
    with_roster(Duration::from_millis(10), |roster| {
        assert_eq!(roster.slots, 1);
        let (server, mut client) = connection();
        let descriptor = server.as_raw_fd();
        let (beat, _) = roster.join(Member::socket(descriptor), Path::Echo);
        roster.park(&beat, parked(server, &beat, None), Box::default()).unwrap();
        let mut ping = [0; 10];
        for number in 1..=2 {
            assert!(a_whole_turn(roster).is_empty());
            client.read_exact(&mut ping).unwrap();
            assert_eq!(ping, [0x89, 8, 0, 0, 0, 0, 0, 0, 0, number]);
        }
        // An answer, and it may miss two more.
        client.write_all(&[0x8A, 0x80, 0, 0, 0, 0]).unwrap();
        assert!(attend(roster).is_empty());
        assert!(a_whole_turn(roster).is_empty() && a_whole_turn(roster).is_empty());
        let woken = a_whole_turn(roster);
        assert_eq!((woken[0].parked.idle.pings, woken[0].parked.idle.unanswered), (4, 2));
        assert_eq!(woken[0].beat.pulse.pending(), PING);
    });
}

#[test]
fn the_end_reaches_all_and_those_who_come_late_and_nobody_parks_any_more() {
    with_roster(Duration::ZERO, |roster| {
        let (server, _client) = connection();
        let (beat, _) = roster.join(Member::socket(server.as_raw_fd()), Path::Echo);
        roster.park(&beat, parked(server, &beat, None), Box::default()).unwrap();
        let (active, _) = roster.join(Member::socket(500), Path::Echo);
        let mut woken = Vec::new();
        let mut from = Some(0);
        while let Some(descriptor) = from {
            from = roster.drain(descriptor, &mut woken);
        }
        assert_eq!((woken.len(), woken[0].beat.pulse.pending()), (1, DRAIN));
        assert_eq!(active.pulse.pending(), DRAIN);
        assert!(roster.draining());
        let (late, _) = roster.join(Member::socket(501), Path::Echo);
        assert_eq!(late.pulse.pending(), DRAIN);
        let (server, _client) = connection();
        let quiet = Beat::default();
        assert!(roster.park(&quiet, parked(server, &quiet, None), Box::default()).is_err());
    });
}

#[test]
fn a_parked_member_gets_its_mail_and_comes_back_when_there_is_much_of_it() {
    with_roster(Duration::ZERO, |roster| {
        let (server, mut client) = connection();
        let descriptor = server.as_raw_fd();
        let (beat, place) = roster.join(Member::socket(descriptor), Path::Broadcast);
        let mut speaker = roster.join(Member::socket(1_000), Path::Broadcast).1.unwrap();
        roster.park(&beat, parked(server, &beat, place.as_ref()), Box::default()).unwrap();
        let mut woken = Vec::new();
        for text in ["a", "b"] {
            roster.publish(Member::socket(1_000), &mut speaker, Message::text(text));
        }
        assert_eq!(roster.relay(Member::FIRST, &mut woken), None);
        let mut frames = [0; 6];
        client.read_exact(&mut frames).unwrap();
        assert_eq!(&frames, b"\x81\x01a\x81\x01b");
        assert!(woken.is_empty());
        for _ in 0..=MAX_BEHIND {
            roster.publish(Member::socket(1_000), &mut speaker, Message::text("c"));
        }
        roster.relay(Member::FIRST, &mut woken);
        assert_eq!(woken[0].beat.pulse.pending(), MAIL);
        let mut place = Place::at(woken[0].parked.idle.cursor);
        assert_eq!(
            std::iter::from_fn(|| roster.next_message(Member::socket(descriptor), &mut place)).count(),
            MAX_BEHIND + 1
        );
    });
}

#[test]
fn leaving_late_does_not_take_a_successor_along() {
    with_roster(Duration::ZERO, |roster| {
        let (first, place) = roster.join(Member::socket(400), Path::Broadcast);
        let (second, mut its_place) = roster.join(Member::socket(400), Path::Broadcast);
        roster.leave(Member::socket(400), &first, place.as_ref());
        let mut speaker = roster.join(Member::socket(401), Path::Broadcast).1.unwrap();
        roster.publish(Member::socket(401), &mut speaker, Message::text("x"));
        assert_eq!(second.pulse.pending(), MAIL);
        assert_eq!(
            roster.next_message(Member::socket(400), its_place.as_mut().unwrap()),
            Some(Message::text("x"))
        );
        roster.leave(Member::socket(400), &second, its_place.as_ref());
        assert!(matches!(roster.lock().table.get_mut(400), Some(Entry::Vacant)));
    });
}
