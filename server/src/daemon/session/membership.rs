//! What a session does as a member of a room.

use std::mem;

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::debug;

use super::Session;
use crate::daemon::SlowConsumer;
use crate::daemon::carrier::Carrier;

impl<C: Carrier> Session<C> {
    /// The next message of the room.
    pub(super) fn mail(&mut self) -> Option<Message> {
        let place = self.place.as_mut().filter(|_| !self.closing)?;
        self.shared.roster.next_message(self.member, self.service, place)
    }

    /// Whether it has lost messages of its room and may not.
    pub(super) fn too_slow(&self) -> bool {
        self.shared.options.slow_consumer == SlowConsumer::Close
            && !self.closing
            && self.place.as_ref().is_some_and(|place| self.shared.roster.overran(self.service, place))
    }

    pub(super) fn send_away(&mut self) -> Error {
        self.shared.figures(self.door).slow_closed.add(1);
        self.fail(CloseCode::Policy, "slow consumer")
    }

    pub(super) fn report_lost(&mut self) {
        let lost = self.place.as_mut().map_or(0, |place| mem::take(&mut place.lost));
        if lost > 0 {
            self.shared.figures(self.door).relay_dropped.add(lost);
            debug!(dropped = lost, "a slow member of a room lost messages");
        }
    }
}
