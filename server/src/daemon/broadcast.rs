//! A room: a message from one connection goes to all the others in it.
//!
//! The room keeps one log of the last messages; a member is a position in it. So a member that is parked keeps its place
//! for four bytes. When a member reads too slowly the oldest messages it has not got fall out of the log, counted: the
//! rest of the room must not wait for it, and memory must not grow. What everybody has got is let go at once.

use std::collections::{BTreeSet, VecDeque};

use tokio_tungstenite::tungstenite::Message;

use super::member::Member;

/// How much a room keeps for slow members.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    /// Payload bytes. The last message is kept however large it is.
    pub(super) bytes: usize,
}

/// Messages are numbered, wrapping.
pub(super) struct Room {
    log: VecDeque<Relayed>,
    /// Payload bytes in the log.
    bytes: usize,
    bounds: Bounds,
    /// Number of the next message.
    head: u32,
    members: BTreeSet<Member>,
    /// Parked members are to be written to.
    pub(super) queued: bool,
}

struct Relayed {
    from: Member,
    /// `None` once everybody has got it.
    message: Option<Message>,
    /// Members that have not got it.
    left: usize,
}

/// A member's place in the log.
#[derive(Debug)]
pub(super) struct Place {
    /// Number of the next message it is to get.
    pub(super) cursor: u32,
    /// The message of its own that is still before it. There is one at most: a connection reads on only when it has got
    /// everything there was.
    own: Option<u32>,
    /// Messages it has lost.
    pub(super) lost: u64,
}

impl Place {
    pub(super) fn at(cursor: u32) -> Self {
        Self { cursor, own: None, lost: 0 }
    }
}

impl Room {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { log: VecDeque::new(), bytes: 0, bounds, head: 0, members: BTreeSet::new(), queued: false }
    }

    /// Whether nobody is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn join(&mut self, member: Member) -> Place {
        self.members.insert(member);
        Place::at(self.head)
    }

    pub(super) fn leave(&mut self, member: Member, place: &Place) {
        self.members.remove(&member);
        let behind = self.behind(place.cursor).min(self.log.len());
        let unseen = self.log.iter_mut().rev().take(behind);
        self.bytes -= unseen.filter(|relayed| relayed.from != member).map(Relayed::got).sum::<usize>();
        self.let_go();
    }

    /// Members from `from` on.
    pub(super) fn members(&self, from: Member) -> impl Iterator<Item = Member> {
        self.members.range(from..).copied()
    }

    /// Messages that a member whose cursor this is has still to get, lost ones included.
    pub(super) fn behind(&self, cursor: u32) -> usize {
        self.head.wrapping_sub(cursor) as usize
    }

    /// Keeps `message` for everyone but its sender.
    pub(super) fn publish(&mut self, from: Member, place: &mut Place, message: Message) {
        let left = self.members.len() - usize::from(self.members.contains(&from));
        if left == 0 {
            return;
        }
        let size = message.len();
        while self.log.len() >= self.bounds.messages.max(1)
            || self.bytes + size > self.bounds.bytes && !self.log.is_empty()
        {
            let fallen = self.log.pop_front();
            self.bytes -= fallen.and_then(|relayed| relayed.message).map_or(0, |message| message.len());
        }
        self.bytes += size;
        self.log.push_back(Relayed { from, message: Some(message), left });
        if place.cursor == self.head {
            place.cursor = self.head.wrapping_add(1);
        } else {
            place.own = Some(self.head);
        }
        self.head = self.head.wrapping_add(1);
    }

    /// The next message for `member`.
    pub(super) fn next(&mut self, member: Member, place: &mut Place) -> Option<Message> {
        let (missing, lost) = self.missing(place);
        place.lost += lost as u64;
        place.cursor = place.cursor.wrapping_add(missing as u32);
        while self.behind(place.cursor) > 0 {
            let at = self.log.len() - self.behind(place.cursor);
            place.cursor = place.cursor.wrapping_add(1);
            let relayed = &mut self.log[at];
            if relayed.from == member {
                continue;
            }
            let message = relayed.message.clone();
            self.bytes -= relayed.got();
            self.let_go();
            return message;
        }
        None
    }

    /// Whether messages have fallen out of the log that this member has not got.
    pub(super) fn overran(&self, place: &Place) -> bool {
        self.missing(place).1 > 0
    }

    /// Messages before the member's next one that are not in the log any more, and how many of them were for it.
    fn missing(&self, place: &Place) -> (usize, usize) {
        let missing = self.behind(place.cursor).saturating_sub(self.log.len());
        let own = place.own.is_some_and(|own| (own.wrapping_sub(place.cursor) as usize) < missing);
        (missing, missing - usize::from(own))
    }

    /// Forgets what everybody has got.
    fn let_go(&mut self) {
        while self.log.front().is_some_and(|relayed| relayed.left == 0) {
            self.log.pop_front();
        }
    }
}

impl Relayed {
    /// One more member has got it; the payload bytes that nobody needs any more.
    fn got(&mut self) -> usize {
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return 0;
        }
        self.message.take().map_or(0, |message| message.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: usize = 64;

    fn a_room() -> Room {
        Room::new(Bounds { messages: LOG, bytes: 1_000_000 })
    }

    fn publish(room: &mut Room, from: i32, place: &mut Place, numbers: std::ops::Range<usize>) {
        numbers
            .for_each(|number| room.publish(Member::socket(from), place, Message::text(number.to_string())));
    }

    fn drain(room: &mut Room, member: i32, place: &mut Place) -> Vec<usize> {
        std::iter::from_fn(|| room.next(Member::socket(member), place))
            .map(|message| message.into_text().unwrap().parse().unwrap())
            .collect()
    }

    #[test]
    fn a_slow_member_loses_the_oldest_and_it_is_counted() {
        let mut room = a_room();
        let (mut sender, mut slow) = (room.join(Member::socket(1)), room.join(Member::socket(2)));
        publish(&mut room, 1, &mut sender, 0..LOG + 3);
        assert_eq!(drain(&mut room, 2, &mut slow), Vec::from_iter(3..LOG + 3));
        assert_eq!(room.next(Member::socket(1), &mut sender), None);
        assert_eq!((slow.lost, sender.lost), (3, 0));
        assert!(room.log.is_empty() && room.bytes == 0);
    }

    #[test]
    fn the_log_is_bounded_in_bytes_too_but_holds_one_message_of_any_size() {
        let mut room = Room::new(Bounds { messages: LOG, bytes: 100 });
        let (speaker, listener) = (Member::socket(1), Member::socket(2));
        let (mut sender, mut slow) = (room.join(speaker), room.join(listener));
        for size in [40, 40, 40, 1_000] {
            room.publish(speaker, &mut sender, Message::binary(vec![0; size]));
            assert!(room.bytes == 1_000 || room.bytes <= 100, "{}", room.bytes);
        }
        assert!(room.overran(&slow) && !room.overran(&sender));
        assert_eq!(room.next(listener, &mut slow).map(|message| message.len()), Some(1_000));
        assert_eq!((slow.lost, room.bytes), (3, 0));
        assert!(!room.overran(&slow));
    }

    #[test]
    fn nobody_hears_itself_and_its_own_message_is_never_lost_to_it() {
        let mut room = a_room();
        let mut places =
            [room.join(Member::socket(1)), room.join(Member::socket(2)), room.join(Member::socket(3))];
        // 2 is one behind when it speaks.
        publish(&mut room, 1, &mut places[0], 0..1);
        publish(&mut room, 2, &mut places[1], 1..2);
        publish(&mut room, 1, &mut places[0], 2..LOG + 1);
        assert_eq!(drain(&mut room, 2, &mut places[1]), Vec::from_iter(2..LOG + 1));
        assert_eq!(places[1].lost, 1);
        // The log has gone past both.
        publish(&mut room, 1, &mut places[0], LOG + 1..LOG + 2);
        publish(&mut room, 2, &mut places[1], LOG + 2..LOG + 3);
        publish(&mut room, 1, &mut places[0], LOG + 3..3 * LOG);
        assert_eq!(drain(&mut room, 2, &mut places[1]), Vec::from_iter(2 * LOG..3 * LOG));
        assert_eq!(places[1].lost, 1 + 2 * LOG as u64 - (LOG as u64 + 2));
    }

    #[test]
    fn what_everybody_has_got_or_left_behind_is_let_go() {
        let mut room = a_room();
        let mut places =
            [room.join(Member::socket(1)), room.join(Member::socket(2)), room.join(Member::socket(3))];
        publish(&mut room, 1, &mut places[0], 0..10);
        assert_eq!(drain(&mut room, 2, &mut places[1]).len(), 10);
        assert!(room.log.iter().all(|relayed| relayed.message.is_some()));
        room.leave(Member::socket(3), &places[2]);
        assert!(room.log.is_empty());
        // Alone again, as when nobody else ever came.
        room.leave(Member::socket(2), &places[1]);
        publish(&mut room, 1, &mut places[0], 0..1);
        assert!(room.log.is_empty());
    }
}
