//! `/broadcast`: a message from one connection goes to all the others on the path.
//!
//! Each member has a bounded queue. When a member reads too slowly the oldest message in its queue goes, counted: the
//! rest of the room must not wait for it, and memory must not grow.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_tungstenite::tungstenite::Message;

use super::roster::{Beat, MAIL};

/// Messages a slow member may be behind. They share their payload with the other members' queues.
const QUEUE: usize = 64;

/// The room.
#[derive(Default)]
pub(super) struct Hub {
    next: AtomicU64,
    members: Mutex<HashMap<u64, Arc<Mailbox>>>,
}

struct Mailbox {
    beat: Arc<Beat>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    dropped: u64,
}

/// A connection's place in the room.
pub(super) struct Member {
    id: u64,
    mailbox: Arc<Mailbox>,
}

impl Hub {
    pub(super) fn join(&self, beat: Arc<Beat>) -> Member {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::new(Mailbox { beat, queue: Mutex::default() });
        self.members.lock().unwrap_or_else(PoisonError::into_inner).insert(id, mailbox.clone());
        Member { id, mailbox }
    }

    /// Takes the member out and says how many messages it lost.
    pub(super) fn leave(&self, member: &Member) -> u64 {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).remove(&member.id);
        member.mailbox.lock().dropped
    }

    /// Queues `message` for everyone but its sender.
    pub(super) fn publish(&self, sender: &Member, message: &Message) {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, mailbox) in members.iter().filter(|(id, _)| **id != sender.id) {
            mailbox.lock().push(message.clone());
            mailbox.beat.pulse.raise(MAIL);
        }
    }
}

impl Member {
    /// The oldest message waiting.
    pub(super) fn next(&self) -> Option<Message> {
        self.mailbox.lock().messages.pop_front()
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, message: Message) {
        if self.messages.len() == QUEUE {
            self.messages.pop_front();
            self.dropped += 1;
        }
        self.messages.push_back(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_member_loses_the_oldest_and_it_is_counted() {
        let hub = Hub::default();
        let (sender, slow) = (hub.join(Arc::default()), hub.join(Arc::default()));
        for number in 0..QUEUE + 3 {
            hub.publish(&sender, &Message::text(number.to_string()));
        }
        assert_eq!(slow.next(), Some(Message::text("3")));
        assert_eq!(sender.next(), None);
        assert_eq!(hub.leave(&slow), 3);
    }
}
