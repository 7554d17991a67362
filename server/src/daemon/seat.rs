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
