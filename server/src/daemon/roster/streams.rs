//! What the roster does for HTTP/2 connections, which keep their idle streams themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::http2::Hub;
use super::super::member::Member;
use super::super::table::{Beat, DRAIN, Idle};
use super::mail::MAX_BEHIND;
use super::{Place, Roster};

impl Roster {
    /// Forgets a parked stream, and its history.
    pub(in super::super) fn forget(&self, member: Member, idle: &Idle) {
        if let Some(room) = idle.service.room() {
            self.lock().rooms.leave(room, member, &Place::at(idle.cursor));
        }
        self.history(member, idle);
        let figures = &self.figures[idle.door.listener()];
        figures.unparked.add(1);
        figures.ended.add(1);
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
        if state.wanted(beat, idle) || !state.hubs.contains_key(&hub.number) {
            return Err(history);
        }
        if !history.is_empty() {
            state.histories.insert(Member::stream(hub.number, place), history);
        }
        self.parkings.fetch_add(1, Ordering::Relaxed);
        self.figures[idle.door.listener()].parked.add(1);
        beat.leave();
        deliver();
        Ok(())
    }

    /// Whether a connection that joined at turn `joined` only just opened, at turn `now`, and has nothing to prove yet:
    /// its turn comes with the next round.
    pub(in super::super) fn newcomer(&self, joined: u32, now: u32) -> bool {
        now.wrapping_sub(joined) <= self.wheel.slots / 2
    }

    /// Whether a parked member whose cursor this is should rather have a task of its own.
    pub(in super::super) fn far_behind(&self, idle: &Idle) -> bool {
        let mut state = self.lock();
        let overran = state.room(idle.service).is_some_and(|room| room.overran(&Place::at(idle.cursor)));
        overran || state.rooms.behind(idle.service, idle.cursor) > MAX_BEHIND
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};
    use std::time::Duration;

    use tokio_tungstenite::tungstenite::Message;

    use super::super::super::table::{MAIL, PARK, PING};
    use super::super::Joined;
    use super::super::tests::{idle, room, with_roster};
    use super::*;

    fn parks(roster: &Roster, hub: &Hub, joined: &Joined) -> bool {
        let mut delivered = false;
        let deliver = || delivered = true;
        let outcome = roster.park_stream(hub, 0, &joined.beat, &idle(joined), Box::default(), deliver);
        assert_eq!(outcome.is_ok(), delivered);
        delivered
    }

    #[test]
    fn a_stream_is_parked_unless_something_waits_for_it_or_nobody_would_take_it() {
        with_roster(Duration::ZERO, |roster| {
            let hub = roster.enter();
            let cx = Context::from_waker(Waker::noop());
            let member = Member::stream(hub.number, 0);
            let mut joined = roster.join(member, room()).unwrap();
            joined.beat.pulse.raise(PING | PARK);
            assert!(!parks(roster, &hub, &joined));
            joined.beat.pulse.take(&cx);
            // A message that it has not been told of yet.
            let speaker = Member::socket(7);
            let mut other = roster.join(speaker, room()).unwrap();
            roster.publish(speaker, other.service, other.place.as_mut().unwrap(), Message::text("x"));
            assert!(!parks(roster, &hub, &joined));
            joined.beat.pulse.take(&cx);
            assert!(!parks(roster, &hub, &joined));
            let place = joined.place.as_mut().unwrap();
            assert!(roster.next_message(member, joined.service, place).is_some());
            assert!(!joined.beat.gone());
            joined.beat.pulse.raise(PARK);
            assert!(parks(roster, &hub, &joined) && joined.beat.gone());
            roster.exit(&hub);
            assert!(!parks(roster, &hub, &joined));
        });
    }

    #[test]
    fn a_message_reaches_the_connections_of_members_and_those_forgotten_are_no_members() {
        with_roster(Duration::ZERO, |roster| {
            let (one, two, empty) = (roster.enter(), roster.enter(), roster.enter());
            assert!(one.number != two.number && two.number != empty.number && one.number != 0);
            let members = [(&one, 0), (&one, 1), (&two, 0)].map(|(hub, at)| Member::stream(hub.number, at));
            let mut joined = members.map(|member| roster.join(member, room()).unwrap());
            let service = joined[0].service;
            roster.publish(members[0], service, joined[0].place.as_mut().unwrap(), Message::text("x"));
            let told = [&one, &two, &empty].map(|hub| hub.pulse.pending() & MAIL != 0);
            assert_eq!(told, [true, true, false]);
            for (at, has) in [(0, false), (1, true), (2, true)] {
                let place = joined[at].place.as_mut().unwrap();
                assert_eq!(roster.next_message(members[at], service, place).is_some(), has);
                roster.forget(members[at], &idle(&joined[at]));
            }
            // The room has gone with its last member.
            assert_eq!(roster.lock().rooms.len(), 0);
        });
    }

    #[test]
    fn those_who_come_late_hear_that_the_server_is_going_away() {
        with_roster(Duration::ZERO, |roster| {
            let early = roster.enter();
            roster.begin_drain();
            for hub in [early, roster.enter()] {
                assert_eq!(hub.pulse.pending(), DRAIN);
            }
        });
    }
}
