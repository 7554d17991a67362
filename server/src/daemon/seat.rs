//! A connection's place among the others, taken before its peer hears that it is let in: who has read the answer is in its
//! room, and a room that is one too many is refused in time.

use std::sync::Arc;

use super::Shared;
use super::member::Member;
use super::policy::Route;
use super::roster::Joined;

/// Given back when it is dropped, unless a session has taken it over.
pub(super) struct Seat {
    shared: Arc<Shared>,
    member: Member,
    joined: Option<Joined>,
}

impl Seat {
    /// `None` where there are too many rooms.
    pub(super) fn take(shared: &Arc<Shared>, member: Member, route: Route) -> Option<Self> {
        let joined = shared.roster.join(member, route)?;
        Some(Self { shared: shared.clone(), member, joined: Some(joined) })
    }

    /// Who has it, and what was given to it.
    pub(super) fn occupy(mut self) -> (Member, Option<Joined>) {
        (self.member, self.joined.take())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(Joined { beat, service, place }) = self.joined.take() {
            self.shared.roster.leave(self.member, &beat, service, place.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{Options, Server};

    #[test]
    fn a_seat_that_nobody_takes_over_is_free_again_and_one_taken_over_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let options = Options { max_rooms: 1, ..Options::default() };
            let shared = Server::new(Vec::new(), None, options).unwrap().shared;
            let take =
                |number, name: &str| Seat::take(&shared, Member::socket(number), Route::Room(name.into()));
            let first = take(1_000, "a").unwrap();
            assert!(take(1_001, "b").is_none());
            drop(first);
            assert_eq!(shared.roster.rooms(), 0);
            let (member, joined) = take(1_000, "b").unwrap().occupy();
            assert!(member == Member::socket(1_000) && joined.is_some());
            assert_eq!(shared.roster.rooms(), 1);
        });
    }
}
