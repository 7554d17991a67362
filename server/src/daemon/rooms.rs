//! The rooms of `/broadcast`: made for the first member, gone with the last, and never more than so many.

use std::collections::HashMap;

use super::broadcast::{Bounds, Place, Room};
use super::member::Member;
use super::policy::Route;

/// What is done with a connection's messages, in two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Service(u16);

impl Service {
    pub(super) const ECHO: Self = Self(0);
    pub(super) const SINK: Self = Self(1);
    /// Numbers below are not rooms.
    const ROOMS: u16 = 2;

    /// Most rooms that can be told apart.
    pub(super) const MAX_ROOMS: usize = (u16::MAX - Self::ROOMS) as usize;

    fn in_room(number: usize) -> Self {
        // Never more than `MAX_ROOMS`.
        Self(number as u16 + Self::ROOMS)
    }

    /// The room's number, where it is one.
    pub(super) fn room(self) -> Option<usize> {
        self.0.checked_sub(Self::ROOMS).map(usize::from)
    }
}

/// All rooms, by number.
pub(super) struct Rooms {
    rooms: Vec<Option<Named>>,
    numbers: HashMap<String, usize>,
    most: usize,
    bounds: Bounds,
}

struct Named {
    name: String,
    room: Room,
}

impl Rooms {
    /// At most `most`, each with a log of at most `bounds`.
    pub(super) fn new(most: usize, bounds: Bounds) -> Self {
        Self { rooms: Vec::new(), numbers: HashMap::new(), most: most.min(Service::MAX_ROOMS), bounds }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there is a room of that name or may be.
    pub(super) fn have(&self, name: &str) -> bool {
        self.numbers.len() < self.most || self.numbers.contains_key(name)
    }

    /// What is done for a new `member` with that route, and its place where that is in a room; `None` when there are too
    /// many rooms.
    pub(super) fn join(&mut self, member: Member, route: Route) -> Option<(Service, Option<Place>)> {
        let name = match route {
            Route::Echo => return Some((Service::ECHO, None)),
            Route::Sink => return Some((Service::SINK, None)),
            Route::Room(name) if self.have(&name) => name,
            Route::Room(_) => return None,
        };
        let number = match self.numbers.get(&name) {
            Some(number) => *number,
            None => self.open(name),
        };
        let place = self.get(number)?.join(member);
        Some((Service::in_room(number), Some(place)))
    }

    /// Forgets a member, and the room with the last.
    pub(super) fn leave(&mut self, number: usize, member: Member, place: &Place) {
        let Some(entry) = self.rooms.get_mut(number) else { return };
        let Some(named) = entry else { return };
        named.room.leave(member, place);
        if named.room.is_empty() {
            self.numbers.remove(&named.name);
            *entry = None;
        }
        while matches!(self.rooms.last(), Some(None)) {
            self.rooms.pop();
        }
    }

    /// The room of that number.
    pub(super) fn get(&mut self, number: usize) -> Option<&mut Room> {
        self.rooms.get_mut(number)?.as_mut().map(|named| &mut named.room)
    }

    /// Messages that a member with that service and cursor has still to get.
    pub(super) fn behind(&self, service: Service, cursor: u32) -> usize {
        let room = service.room().and_then(|number| self.rooms.get(number)?.as_ref());
        room.map_or(0, |named| named.room.behind(cursor))
    }

    fn open(&mut self, name: String) -> usize {
        let number = self.rooms.iter().position(Option::is_none).unwrap_or_else(|| {
            self.rooms.push(None);
            self.rooms.len() - 1
        });
        self.rooms[number] = Some(Named { name: name.clone(), room: Room::new(self.bounds) });
        self.numbers.insert(name, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    fn rooms(most: usize) -> Rooms {
        Rooms::new(most, Bounds { messages: 4, bytes: 1_000 })
    }

    fn join(rooms: &mut Rooms, member: i32, name: &str) -> Option<(usize, Place)> {
        let (service, place) = rooms.join(Member::socket(member), Route::Room(name.into()))?;
        Some((service.room().unwrap(), place.unwrap()))
    }

    #[test]
    fn a_room_is_there_from_the_first_member_to_the_last() {
        let mut rooms = rooms(10);
        let (a, first) = join(&mut rooms, 1, "a").unwrap();
        let (b, other) = join(&mut rooms, 2, "b").unwrap();
        let (again, second) = join(&mut rooms, 3, "a").unwrap();
        assert_eq!((a, a != b, rooms.len()), (again, true, 2));
        rooms.leave(a, Member::socket(1), &first);
        assert_eq!(rooms.len(), 2);
        rooms.leave(a, Member::socket(3), &second);
        assert_eq!(rooms.len(), 1);
        // Its number is free, and the next room knows nothing of it.
        let (c, _) = join(&mut rooms, 4, "c").unwrap();
        assert_eq!(c, a);
        rooms.leave(b, Member::socket(2), &other);
        assert_eq!(rooms.len(), 1);
    }

    #[test]
    fn rooms_do_not_hear_each_other() {
        let mut rooms = rooms(10);
        let (a, mut speaker) = join(&mut rooms, 1, "a").unwrap();
        let (_, mut listener) = join(&mut rooms, 2, "a").unwrap();
        let (b, mut stranger) = join(&mut rooms, 3, "b").unwrap();
        rooms.get(a).unwrap().publish(Member::socket(1), &mut speaker, Message::text("x"));
        assert_eq!(rooms.get(b).unwrap().next(Member::socket(3), &mut stranger), None);
        assert_eq!(rooms.get(a).unwrap().next(Member::socket(2), &mut listener), Some(Message::text("x")));
    }

    #[test]
    fn one_room_too_many_is_refused_and_those_there_are_not() {
        let mut rooms = rooms(2);
        let (a, place) = join(&mut rooms, 1, "a").unwrap();
        join(&mut rooms, 2, "").unwrap();
        assert!(rooms.have("a") && !rooms.have("c"));
        assert!(join(&mut rooms, 3, "c").is_none());
        assert!(join(&mut rooms, 3, "").is_some());
        assert!(rooms.join(Member::socket(4), Route::Echo).is_some());
        rooms.leave(a, Member::socket(1), &place);
        assert!(join(&mut rooms, 3, "c").is_some());
    }
}
