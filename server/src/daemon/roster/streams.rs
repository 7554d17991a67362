//! What the roster does for HTTP/2 connections, which keep their idle streams themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::http2::Hub;
use super::super::member::Member;
use super::super::table::{Beat, DRAIN, Idle};
use super::super::upgrade::Path;
use super::{MAX_BEHIND, Place, Roster};

impl Roster {
    /// Takes a parked stream out of the room, and forgets its history.
    pub(in super::super) fn forget(&self, member: Member, idle: &Idle) {
        if idle.path == Path::Broadcast {
            self.lock().room.leave(member, &Place::at(idle.cursor));
        }
        self.history(member, idle);
    }

    /// The history of a parked stream's compression, which is not kept any more.
    pub(in super::super) fn history(&self, member: Member, idle: &Idle) -> Box<[u8]> {
        let kept = idle.deflate.is_some_and(|agreed| agreed.client().takeover);
        if kept { self.lock().histories.remove(&member).unwrap_or_default() } else { Box::default() }
    }

    /// Adds an HTTP/2 connection. If the server is already going away, it hears so at once.
    pub(in super::super) fn enter(&self) -> Arc<Hub> {
        let mut state = self.lock();
        let mut number = state.last_hub;
        while number == 0 || state.hubs.contains_key(&number) {
            number = (number + 1) & Hub::MAX;
        }
        state.last_hub = number;
        let hub = Arc::new(Hub::new(number));
        if state.draining {
            hub.pulse.raise(DRAIN);
        }
        state.hubs.insert(number, hub.clone());
        hub
    }

    /// Forgets an HTTP/2 connection. No stream is handed to it any more.
    pub(in super::super) fn exit(&self, hub: &Hub) {
        self.lock().hubs.remove(&hub.number);
    }

    /// Lets `deliver` hand an idle stream to `hub`, without waiting; or does not, and says so, when something is waiting for
    /// the stream, the server is going away, or the HTTP/2 connection has ended. The `history` of its compression stays
    /// here, or comes back.
    pub(in super::super) fn park_stream(
        &self,
        hub: &Hub,
        place: u32,
        beat: &Beat,
        idle: &Idle,
        history: Box<[u8]>,
        deliver: impl FnOnce(),
    ) -> Result<(), Box<[u8]>> {
        let mut state = self.lock();
        if state.wanted(beat, idle.path, idle.cursor) || !state.hubs.contains_key(&hub.number) {
            return Err(history);
        }
        if !history.is_empty() {
            state.histories.insert(Member::stream(hub.number, place), history);
        }
        self.parkings.fetch_add(1, Ordering::Relaxed);
        beat.leave();
        deliver();
        Ok(())
    }

    /// Whether a connection that joined at turn `joined` only just opened, at turn `now`, and has nothing to prove yet:
    /// its turn comes with the next round.
    pub(in super::super) fn newcomer(&self, joined: u32, now: u32) -> bool {
        now.wrapping_sub(joined) <= self.slots / 2
    }

    /// Whether a parked member whose cursor this is should rather have a task of its own.
    pub(in super::super) fn far_behind(&self, cursor: u32) -> bool {
        self.lock().room.behind(cursor) > MAX_BEHIND
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};
    use std::time::Duration;

    use tokio_tungstenite::tungstenite::Message;

    use super::super::super::table::{MAIL, PARK, PING};
    use super::super::tests::with_roster;
    use super::*;

    const IDLE: Idle = Idle {
        pings: 0,
        joined: 0,
        unanswered: 0,
        cursor: 0,
        since: 0,
        patience: 0,
        path: Path::Broadcast,
        deflate: None,
    };

    fn parks(roster: &Roster, hub: &Hub, beat: &Beat, cursor: u32) -> bool {
        let mut delivered = false;
        let idle = Idle { cursor, ..IDLE };
        let outcome = roster.park_stream(hub, 0, beat, &idle, Box::default(), || delivered = true);
        assert_eq!(outcome.is_ok(), delivered);
        delivered
    }

    #[test]
    fn a_stream_is_parked_unless_something_waits_for_it_or_nobody_would_take_it() {
        with_roster(Duration::ZERO, |roster| {
            let hub = roster.enter();
            let cx = Context::from_waker(Waker::noop());
            let (beat, place) = roster.join(Member::stream(hub.number, 0), Path::Broadcast);
            let mut place = place.unwrap();
            beat.pulse.raise(PING | PARK);
            assert!(!parks(roster, &hub, &beat, place.cursor));
            beat.pulse.take(&cx);
            // A message that it has not been told of yet.
            let speaker = Member::socket(7);
            let mut its_place = roster.join(speaker, Path::Broadcast).1.unwrap();
            roster.publish(speaker, &mut its_place, Message::text("x"));
            assert!(!parks(roster, &hub, &beat, place.cursor));
            assert!(roster.next_message(Member::stream(hub.number, 0), &mut place).is_some());
            assert!(!beat.gone());
            beat.pulse.raise(PARK);
            assert!(parks(roster, &hub, &beat, place.cursor) && beat.gone());
            roster.exit(&hub);
            assert!(!parks(roster, &hub, &Beat::default(), place.cursor));
        });
    }

    #[test]
    fn a_message_reaches_the_connections_of_members_and_those_forgotten_are_no_members() {
        with_roster(Duration::ZERO, |roster| {
            let (one, two, empty) = (roster.enter(), roster.enter(), roster.enter());
            assert!(one.number != two.number && two.number != empty.number && one.number != 0);
            let members = [(&one, 0), (&one, 1), (&two, 0)].map(|(hub, at)| Member::stream(hub.number, at));
            let mut places = members.map(|member| roster.join(member, Path::Broadcast).1.unwrap());
            roster.publish(members[0], &mut places[0], Message::text("x"));
            let told = [&one, &two, &empty].map(|hub| hub.pulse.pending() & MAIL != 0);
            assert_eq!(told, [true, true, false]);
            assert_eq!(roster.next_message(members[0], &mut places[0]), None);
            for at in [1, 2] {
                assert!(roster.next_message(members[at], &mut places[at]).is_some());
                roster.forget(members[at], &Idle { cursor: places[at].cursor, ..IDLE });
            }
            roster.forget(members[0], &Idle { cursor: places[0].cursor, ..IDLE });
            assert!(roster.lock().room.members(Member::FIRST).next().is_none());
        });
    }

    #[test]
    fn those_who_come_late_hear_that_the_server_is_going_away() {
        with_roster(Duration::ZERO, |roster| {
            let early = roster.enter();
            roster.drain(0, &mut Vec::new());
            for hub in [early, roster.enter()] {
                assert_eq!(hub.pulse.pending(), DRAIN);
            }
        });
    }
}
