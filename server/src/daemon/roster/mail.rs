//! Messages of rooms on their way to members.

use tokio_tungstenite::tungstenite::Message;

use super::{CHUNK, Departure, Roster, State, Wake};
use crate::daemon::broadcast::{Place, Room};
use crate::daemon::figures::Figures;
use crate::daemon::member::Member;
use crate::daemon::rooms::Service;
use crate::daemon::table::{Entry, MAIL, Parked, Stage, index};
use crate::daemon::wire::{Outgoing, Written};

/// A parked member of a room that is further behind comes back: its own task keeps up better than one for all.
pub(super) const MAX_BEHIND: usize = 4;

impl Roster {
    /// Keeps `message` for the others in the room and lets them know.
    pub(crate) fn publish(&self, from: Member, service: Service, place: &mut Place, message: Message) {
        let mut state = self.lock();
        let State { table, hubs, rooms, mail, .. } = &mut *state;
        let Some((number, room)) = service.room().and_then(|number| Some((number, rooms.get(number)?)))
        else {
            return;
        };
        room.publish(from, place, message);
        let (mut parked, mut told) = (false, 0);
        for member in room.members(Member::FIRST).filter(|member| *member != from) {
            let Some(descriptor) = member.descriptor() else {
                // Its streams are neighbours: once for all of them.
                let hub = hubs.get(&member.connection()).filter(|hub| hub.number != told);
                told = member.connection();
                hub.into_iter().for_each(|hub| hub.pulse.raise(MAIL));
                continue;
            };
            match table.get_mut(index(descriptor)) {
                Some(Entry::Active(beat)) => beat.pulse.raise(MAIL),
                Some(Entry::Parked(_)) => parked = true,
                Some(Entry::Vacant) | None => {}
            }
        }
        if parked && !room.queued {
            room.queued = true;
            mail.push(number);
            self.relay.notify_one();
        }
    }

    /// The next message for a member of a room that its own task or its HTTP/2 connection serves.
    pub(crate) fn next_message(
        &self,
        member: Member,
        service: Service,
        place: &mut Place,
    ) -> Option<Message> {
        self.lock().room(service)?.next(member, place)
    }

    /// Whether a member has lost messages or is about to find that it has.
    pub(crate) fn overran(&self, service: Service, place: &Place) -> bool {
        place.lost > 0 || self.lock().room(service).is_some_and(|room| room.overran(place))
    }

    /// The next room in which parked members are to be written to.
    pub(crate) fn next_mail(&self) -> Option<usize> {
        let mut state = self.lock();
        let number = state.mail.pop()?;
        if let Some(room) = state.rooms.get(number) {
            // What is published from now on wants another pass.
            room.queued = false;
        }
        Some(number)
    }

    /// Writes what is in a room's log to some of its parked members that are sockets, from `from` on, and says where to go
    /// on. Members that park meanwhile have got everything, so one pass in order of descriptors misses nobody.
    pub(crate) fn relay(
        &self,
        number: usize,
        from: Member,
        departures: &mut Vec<Departure>,
    ) -> Option<Member> {
        let mut state = self.lock();
        let members =
            state.rooms.get(number)?.members(from).take_while(|member| member.descriptor().is_some());
        let members: Vec<Member> = members.take(CHUNK).collect();
        for member in &members {
            let descriptor = member.descriptor().map_or(0, index);
            let State { table, rooms, .. } = &mut *state;
            let (Some(parked), Some(room)) = (table.parked_mut(descriptor), rooms.get(number)) else {
                continue;
            };
            if parked.stage == Stage::Closing {
                continue;
            }
            let figures = &self.figures[parked.idle.door.listener()];
            if let Some(wake) = relay_to(room, *member, parked, figures) {
                departures.extend(self.wake(&mut state, descriptor, wake));
            }
        }
        members.last().filter(|_| members.len() == CHUNK).map(|last| last.after())
    }
}

/// Writes what waits for a parked member; what it cannot take brings it back.
fn relay_to(room: &mut Room, member: Member, parked: &mut Parked, figures: &Figures) -> Option<Wake> {
    let mut place = Place::at(parked.idle.cursor);
    // What it has lost its task counts, and ends it where that is the policy.
    if room.behind(place.cursor) > MAX_BEHIND || room.overran(&place) {
        return Some(Wake { bits: MAIL, ..Wake::default() });
    }
    while let Some(message) = room.next(member, &mut place) {
        parked.idle.cursor = place.cursor;
        let Some(written) = Outgoing::message(&message).map(|frame| frame.write(&parked.socket)) else {
            continue;
        };
        figures.sent.add(message.len());
        match written {
            Written::Whole => {}
            Written::Partly(backlog) => {
                return Some(Wake { bits: MAIL, backlog: Some(backlog), ..Wake::default() });
            }
            Written::Broken => return Some(Wake::default()),
        }
    }
    parked.idle.cursor = place.cursor;
    None
}
