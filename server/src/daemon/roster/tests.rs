use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::task::{Context, Waker};

use rustix::event::Timespec;

use super::mail::MAX_BEHIND;
use super::*;
use crate::daemon::door::Porter;
use crate::daemon::table::{MAIL, PING, Stage};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

fn options(ping_interval: Duration) -> Options {
    Options { ping_interval, ping_payload: 8, ..Options::default() }
}

pub(super) fn room() -> Route {
    Route::Room("room".into())
}

/// The door of a connection that nobody counts.
fn door() -> Door {
    Porter::new(1, None).enter(0, [127, 0, 0, 1].into()).unwrap()
}

/// The connection that goes on in a task.
fn back(departure: &Departure) -> &Woken {
    match departure {
        Departure::Back(woken) => woken,
        Departure::Farewell(_) | Departure::Ended(_) => panic!("it does not come back"),
    }
}

/// Runs `test` with a roster, which wants a runtime.
pub(super) fn with_roster(ping_interval: Duration, test: impl FnOnce(&Roster)) {
    with_options(&options(ping_interval), test);
}

fn with_options(options: &Options, test: impl FnOnce(&Roster)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test(&Roster::new(options, [Figures::default()].into()).unwrap()) });
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

/// What is left of a connection that joined so, as it goes idle.
pub(super) fn idle(joined: &Joined) -> Idle {
    Idle {
        pings: 0,
        joined: joined.beat.joined,
        cursor: joined.place.as_ref().map_or(0, |place| place.cursor),
        door: door(),
        unanswered: 0,
        since: 0,
        service: joined.service,
        patience: Patience::One,
        deflate: None,
    }
}

fn parked(socket: TcpStream, joined: &Joined) -> Parked {
    Parked { socket: socket.into(), idle: idle(joined), stage: Stage::Open }
}

fn join(roster: &Roster, descriptor: i32, route: Route) -> Joined {
    roster.join(Member::socket(descriptor), route).unwrap()
}

/// Joins and parks the server's end of a new connection; its number and the client's end.
fn park_one(roster: &Roster, route: Route) -> (i32, TcpStream) {
    let (server, client) = connection();
    let descriptor = server.as_raw_fd();
    let joined = join(roster, descriptor, route);
    roster.park(&joined.beat, parked(server, &joined), Box::default()).unwrap();
    (descriptor, client)
}

/// What the epoll set reports now, handled.
fn attend(roster: &Roster) -> Vec<Departure> {
    let mut events = Vec::with_capacity(8);
    let soon = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    epoll::wait(roster.epoll.get_ref(), rustix::buffer::spare_capacity(&mut events), Some(&soon)).unwrap();
    events.iter().filter_map(|event| roster.attend(event, &mut [0; 64])).collect()
}

fn a_whole_turn(roster: &Roster) -> Vec<Departure> {
    let mut departures = Vec::new();
    let mut from = Some(roster.begin_turn());
    while let Some(descriptor) = from {
        from = roster.ping(descriptor, &mut departures);
    }
    departures
}

fn drain(roster: &Roster) -> Vec<Departure> {
    roster.begin_drain();
    let mut departures = Vec::new();
    let mut from = Some(0);
    while let Some(descriptor) = from {
        from = roster.drain(descriptor, &mut departures);
    }
    departures
}

/// A client's frame with an empty payload, or that of a close code.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

#[test]
fn a_round_pings_everyone_once_evenly_except_newcomers() {
    with_roster(Duration::from_secs(1), |roster| {
        assert_eq!((roster.wheel.slots, roster.wheel.tick), (100, Some(Duration::from_millis(10))));
        let beats: Vec<_> = (0..300).map(|descriptor| join(roster, descriptor, Route::Echo).beat).collect();
        let cx = Context::from_waker(Waker::noop());
        for turn in 0..200 {
            assert!(a_whole_turn(roster).is_empty());
            let due = beats.iter().filter(|beat| beat.pulse.take(&cx) == PING).count();
            assert_eq!(due, if turn < 50 { 0 } else { 3 }, "turn {turn}");
        }
    });
}

#[test]
fn parked_connections_are_pinged_evenly_and_once_a_round_each() {
    with_roster(Duration::from_millis(320), |roster| {
        let slots = roster.wheel.slots as usize;
        assert_eq!(slots, 32);
        let mut clients: Vec<_> = (0..256).map(|_| park_one(roster, Route::Echo)).collect();
        let most = (0..slots)
            .map(|slot| clients.iter().filter(|(descriptor, _)| *descriptor as usize % slots == slot).count())
            .max();
        // The other ends are this process's too, and other tests open descriptors meanwhile.
        assert!(most <= Some(256 / slots * 3), "{most:?}");
        // Newcomers for half a round; then two rounds.
        for _ in 0..slots / 2 {
            a_whole_turn(roster);
        }
        let pings = || roster.figures[0].pings.get();
        for turn in 0..2 * slots {
            let (slot, before) = ((slots / 2 + turn) % slots, pings());
            assert!(a_whole_turn(roster).is_empty());
            let due = clients.iter().filter(|(descriptor, _)| *descriptor as usize % slots == slot).count();
            assert_eq!(pings() - before, due as u64, "turn {turn}");
        }
        for (_, client) in &mut clients {
            let mut two = [0; 20];
            client.read_exact(&mut two).unwrap();
            assert_eq!((two[9], two[19]), (1, 2));
        }
        assert_eq!((pings(), roster.figures[0].missed.get()), (512, 256));
    });
}

#[test]
fn what_waits_for_a_connection_keeps_it_from_being_parked() {
    with_roster(Duration::ZERO, |roster| {
        let (server, _client) = connection();
        let mut joined = join(roster, server.as_raw_fd(), room());
        let member = Member::socket(server.as_raw_fd());
        let mut speaker = join(roster, 1_000, room());
        let beat = joined.beat.clone();
        let mut socket = OwnedFd::from(server);
        for bit in [PING, MAIL, DRAIN] {
            beat.pulse.raise(bit);
            socket = roster.park(&beat, parked(socket.into(), &joined), Box::default()).unwrap_err().0;
            beat.pulse.take(&Context::from_waker(Waker::noop()));
        }
        // Even if it has been told of the message and has not fetched it.
        let place = speaker.place.as_mut().unwrap();
        roster.publish(Member::socket(1_000), speaker.service, place, Message::text("x"));
        beat.pulse.take(&Context::from_waker(Waker::noop()));
        socket = roster.park(&beat, parked(socket.into(), &joined), Box::default()).unwrap_err().0;
        assert!(!beat.gone());
        let place = joined.place.as_mut().unwrap();
        assert_eq!(roster.next_message(member, joined.service, place), Some(Message::text("x")));
        // That it has been quiet for long does not keep it.
        beat.pulse.raise(PARK);
        roster.park(&beat, parked(socket.into(), &joined), Box::default()).unwrap();
        assert!(beat.gone());
    });
}

#[test]
fn what_arrived_before_it_was_parked_is_not_overlooked() {
    with_roster(Duration::ZERO, |roster| {
        let (server, mut client) = connection();
        client.write_all(&frame(0x81, b"")).unwrap();
        let joined = join(roster, server.as_raw_fd(), Route::Echo);
        roster.park(&joined.beat, parked(server, &joined), Box::default()).unwrap();
        let departures = attend(roster);
        assert_eq!(back(&departures[0]).tail, frame(0x81, b""));
        assert!(attend(roster).is_empty());
    });
}

#[test]
fn parked_connections_are_pinged_until_they_miss_too_many() {
    with_roster(Duration::from_millis(10), |roster| {
        assert_eq!(roster.wheel.slots, 1);
        let (_, mut client) = park_one(roster, Route::Echo);
        let mut ping = [0; 10];
        for number in 1..=2 {
            assert!(a_whole_turn(roster).is_empty());
            client.read_exact(&mut ping).unwrap();
            assert_eq!(ping, [0x89, 8, 0, 0, 0, 0, 0, 0, 0, number]);
        }
        // An answer, and it may miss two more.
        client.write_all(&frame(0x8A, b"")).unwrap();
        assert!(attend(roster).is_empty());
        assert!(a_whole_turn(roster).is_empty() && a_whole_turn(roster).is_empty());
        let departures = a_whole_turn(roster);
        let woken = back(&departures[0]);
        assert_eq!((woken.parked.idle.pings, woken.parked.idle.unanswered), (4, 2));
        assert_eq!(woken.beat.pulse.pending(), PING);
        let figures = &roster.figures[0];
        assert_eq!((figures.pings.get(), figures.pongs.get(), figures.missed.get()), (4, 1, 2));
        // Two pings were open when the pong came: which it answers is not known.
        assert_eq!(figures.round_trips().0.iter().sum::<u64>(), 0);
    });
}

#[test]
fn a_round_trip_is_the_time_since_the_turn_of_its_ping() {
    with_roster(Duration::from_millis(20), |roster| {
        assert_eq!(roster.wheel.slots, 2);
        let (_, mut client) = park_one(roster, Route::Echo);
        let mut ping = [0; 10];
        for round in 1..=3 {
            while roster.figures[0].pings.get() < round {
                a_whole_turn(roster);
            }
            client.read_exact(&mut ping).unwrap();
            std::thread::sleep(Duration::from_millis(30));
            client.write_all(&frame(0x8A, b"")).unwrap();
            assert!(attend(roster).is_empty());
        }
        let (counts, sum) = roster.figures[0].round_trips();
        assert_eq!(counts.iter().sum::<u64>(), 3);
        assert!((0.09..5.0).contains(&sum), "{sum}");
    });
}

#[test]
fn the_end_reaches_all_and_those_who_come_late_and_nobody_parks_any_more() {
    with_roster(Duration::ZERO, |roster| {
        let (descriptor, mut client) = park_one(roster, Route::Echo);
        let active = join(roster, 500, Route::Echo).beat;
        assert!(drain(roster).is_empty());
        // A parked one gets its Close where it is, and once.
        assert!(drain(roster).is_empty());
        let mut close = [0; 24];
        client.read_exact(&mut close).unwrap();
        assert_eq!(close, *b"\x88\x16\x03\xE9server is going away");
        assert!(roster.lock().table.parked_mut(descriptor as usize).is_some());
        assert_eq!(active.pulse.pending(), DRAIN);
        assert!(roster.draining());
        assert_eq!(join(roster, 501, Route::Echo).beat.pulse.pending(), DRAIN);
        let (server, _client) = connection();
        let quiet = join(roster, server.as_raw_fd(), Route::Echo);
        quiet.beat.pulse.take(&Context::from_waker(Waker::noop()));
        assert!(roster.park(&quiet.beat, parked(server, &quiet), Box::default()).is_err());
    });
}

#[test]
fn after_our_close_a_close_or_the_end_is_all_that_is_waited_for() {
    with_roster(Duration::from_millis(10), |roster| {
        let close = frame(0x88, &1001_u16.to_be_bytes());
        for (said, whole) in [
            (Some(close.clone()), true),
            (Some([frame(0x8A, b""), close.clone()].concat()), true),
            (None, true),
            // What was on its way: somebody has to follow the frames.
            (Some([frame(0x81, b""), close.clone()].concat()), false),
            (Some(close[..3].to_vec()), false),
        ] {
            let (descriptor, mut client) = park_one(roster, room());
            assert!(drain(roster).is_empty());
            // Nothing follows a Close, and a ping or pong is no answer to it.
            client.write_all(&frame(0x89, b"")).unwrap();
            assert!(attend(roster).is_empty() && a_whole_turn(roster).is_empty());
            match &said {
                Some(bytes) => client.write_all(bytes).unwrap(),
                None => client.shutdown(std::net::Shutdown::Write).unwrap(),
            }
            let departures = attend(roster);
            match &departures[..] {
                [Departure::Ended(_)] => assert!(whole, "{said:?}"),
                [Departure::Farewell(farewell)] => assert!(!whole && Some(&farewell.tail) == said.as_ref()),
                _ => panic!("{said:?}"),
            }
            assert!(roster.lock().table.parked_mut(descriptor as usize).is_none());
            assert_eq!((roster.rooms(), roster.figures[0].open()), (0, (0, 0)));
            drop(departures);
            let mut rest = Vec::new();
            // With what it had not read, the kernel resets it.
            let _ = client.read_to_end(&mut rest);
            assert_eq!(rest.len(), 24, "{rest:?}");
            roster.lock().draining = false;
        }
    });
}

#[test]
fn a_parked_member_gets_its_mail_and_comes_back_when_there_is_much_of_it() {
    with_roster(Duration::ZERO, |roster| {
        let (descriptor, mut client) = park_one(roster, room());
        let Joined { service, place, .. } = join(roster, 1_000, room());
        let mut place = place.unwrap();
        let mut say = |text| roster.publish(Member::socket(1_000), service, &mut place, Message::text(text));
        say("a");
        say("b");
        // However much there is, the room is to be looked at once.
        let number = roster.next_mail().unwrap();
        assert_eq!(roster.next_mail(), None);
        let mut departures = Vec::new();
        assert_eq!(roster.relay(number, Member::FIRST, &mut departures), None);
        let mut frames = [0; 6];
        client.read_exact(&mut frames).unwrap();
        assert_eq!(&frames, b"\x81\x01a\x81\x01b");
        assert!(departures.is_empty());
        (0..=MAX_BEHIND).for_each(|_| say("c"));
        assert_eq!(roster.next_mail(), Some(number));
        roster.relay(number, Member::FIRST, &mut departures);
        let woken = back(&departures[0]);
        assert_eq!(woken.beat.pulse.pending(), MAIL);
        let mut place = Place::at(woken.parked.idle.cursor);
        let member = Member::socket(descriptor);
        let next = || roster.next_message(member, service, &mut place);
        assert_eq!(std::iter::from_fn(next).count(), MAX_BEHIND + 1);
    });
}

#[test]
fn a_parked_member_that_has_lost_messages_comes_back_to_have_them_counted() {
    // A log shorter than what a parked member may be behind.
    let options = Options { room_messages: 2, ..options(Duration::ZERO) };
    with_options(&options, |roster| {
        let (_, _client) = park_one(roster, room());
        let Joined { service, place, .. } = join(roster, 1_000, room());
        let mut place = place.unwrap();
        (0..3).for_each(|_| roster.publish(Member::socket(1_000), service, &mut place, Message::text("x")));
        let mut departures = Vec::new();
        roster.relay(roster.next_mail().unwrap(), Member::FIRST, &mut departures);
        let woken = back(&departures[0]);
        assert_eq!(woken.beat.pulse.pending(), MAIL);
        assert!(roster.overran(service, &Place::at(woken.parked.idle.cursor)));
    });
}

#[test]
fn a_peer_that_does_nothing_but_ping_is_not_served_under_the_lock() {
    with_roster(Duration::ZERO, |roster| {
        let (_, mut client) = park_one(roster, Route::Echo);
        client.write_all(&frame(0x89, b"").repeat(10)).unwrap();
        let departures = attend(roster);
        let mut pongs = [0; 16];
        client.read_exact(&mut pongs).unwrap();
        assert_eq!(pongs, *b"\x8A\0".repeat(8));
        assert_eq!(back(&departures[0]).tail, frame(0x89, b"").repeat(2));
    });
}

#[test]
fn leaving_late_does_not_take_a_successor_along() {
    with_roster(Duration::ZERO, |roster| {
        let member = Member::socket(400);
        let first = join(roster, 400, room());
        let mut second = join(roster, 400, room());
        roster.leave(member, &first.beat, first.service, first.place.as_ref());
        let Joined { service, place, .. } = join(roster, 401, room());
        roster.publish(Member::socket(401), service, &mut place.unwrap(), Message::text("x"));
        assert_eq!(second.beat.pulse.pending(), MAIL);
        let place = second.place.as_mut().unwrap();
        assert_eq!(roster.next_message(member, service, place), Some(Message::text("x")));
        roster.leave(member, &second.beat, second.service, second.place.as_ref());
        assert!(matches!(roster.lock().table.get_mut(400), Some(Entry::Vacant)));
    });
}
