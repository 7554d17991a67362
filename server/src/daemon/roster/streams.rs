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
        self.lock().rooms.behind(idle.service, idle.cursor) > MAX_BEHIND
    }
}
