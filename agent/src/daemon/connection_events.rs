//! From what the kernel side shows of each connection to the events that readers get.

use std::collections::BTreeSet;

use super::announced::Announced;
use super::handshakes::Handshakes;
use super::reported::{Reported, fingerprint, fingerprint_of_candidate};
use crate::document::{Body, Role};
use crate::kernel::{CandidateSocket, Lifecycle, Socket};
use crate::model::{Clock, SlabCost, connection, opened, presumed_connection};

/// Where an event goes; `false` where it found no room.
pub(super) type Emit<'a> = &'a mut dyn FnMut(Body) -> bool;

/// What readers were told of connections, and what they are to be told.
pub(super) struct ConnectionEvents {
    pub(super) handshakes: Handshakes,
    reported: Reported,
    announced: Announced,
    slab: Option<SlabCost>,
    /// Whether each sweep reports the connections that changed, presumed ones included, and whether the present one does.
    updates: bool,
    reports: bool,
}

impl ConnectionEvents {
    /// `updates` is whether readers want to be told of changes.
    pub(super) fn new(show_query: bool, updates: bool, slab: Option<SlabCost>) -> Self {
        Self {
            handshakes: Handshakes::new(show_query),
            reported: Reported::default(),
            announced: Announced::default(),
            slab,
            updates,
            reports: updates,
        }
    }

    pub(super) fn slab(&self) -> Option<SlabCost> {
        self.slab
    }

    /// Has the next sweep report every connection.
    pub(super) fn resend(&mut self) {
        self.reported.renew();
        self.reports = true;
    }

    /// An event of the kernel's.
    pub(super) fn lifecycle(&mut self, event: Lifecycle, clock: &Clock, emit: Emit<'_>) {
        match event {
            Lifecycle::Opened(handshake) => {
                let (cookie, netns) = (handshake.opened.cookie, handshake.opened.endpoints.netns);
                let upgrade = self.handshakes.opened(&handshake);
                let connection = opened(&handshake.opened, clock, upgrade);
                let sent = emit(match handshake.opened.older {
                    0 => Body::ConnectionOpened(connection),
                    _ => Body::ConnectionAdopted(connection),
                });
                // Known from now on: should its close be lost, a sweep finds it gone.
                match (sent, self.updates) {
                    (true, true) => self.reported.opened(cookie, netns),
                    (true, false) => self.announced.opened(cookie),
                    (false, _) => {}
                }
            }
            Lifecycle::Closed(socket) => {
                let cookie = socket.connection.cookie;
                let closed = connection(&socket, clock, self.slab, self.handshakes.of(cookie));
                self.handshakes.closed(cookie);
                let sent = emit(Body::ConnectionClosed(closed));
                // A close that found no room stays known, and is told of as vanished.
                if sent {
                    self.reported.closed(cookie);
                }
                self.announced.closed(cookie, sent);
            }
        }
    }

    /// A sweep begins; for the arguments see [`Announced::begin`].
    pub(super) fn begin_sweep(&mut self, lost: Option<u64>, ends_are_told: bool) {
        self.announced.begin(lost, ends_are_told);
    }

    /// The sweep meets a tracked socket.
    pub(super) fn met(&mut self, socket: &Socket, clock: &Clock, emit: Emit<'_>) {
        let cookie = socket.connection.cookie;
        self.announced.met(cookie);
        if !self.reports {
            return;
        }
        let fingerprint = fingerprint(socket);
        if self.reported.changed(cookie, fingerprint) && emit(self.update(socket, clock)) {
            // An update that found no room is due again at the next sweep.
            self.reported.note(cookie, fingerprint, socket.header.endpoints.netns);
        }
    }

    /// What there is to say of a tracked socket.
    pub(super) fn update(&self, socket: &Socket, clock: &Clock) -> Body {
        let handshake = self.handshakes.of(socket.connection.cookie);
        Body::ConnectionUpdated(connection(socket, clock, self.slab, handshake))
    }

    /// The same of a connection that is presumed to be a WebSocket as this end, to readers that are told of such.
    pub(super) fn update_presumed(&self, candidate: &CandidateSocket, end: Role) -> Option<Body> {
        self.reports.then(|| Body::ConnectionUpdated(presumed_connection(candidate, end, self.slab)))
    }

    /// The sweep meets a connection that is presumed to be a WebSocket as this end. No event of the kernel's will tell that it
    /// ended, so only those are told of it who get updates.
    pub(super) fn met_presumed(&mut self, candidate: &CandidateSocket, end: Role, emit: Emit<'_>) {
        let Some(update) = self.update_presumed(candidate, end) else {
            return;
        };
        let (cookie, fingerprint) = (candidate.unjudged.cookie, fingerprint_of_candidate(candidate));
        if self.reported.changed(cookie, fingerprint) && emit(update) {
            self.reported.note(cookie, fingerprint, candidate.header.endpoints.netns);
        }
    }

    /// The sweep went everywhere but to these network namespaces, and all that happened before its end was told.
    pub(super) fn end_sweep(&mut self, unvisited: &BTreeSet<u32>, emit: Emit<'_>) {
        self.announced.end(unvisited.is_empty());
        self.reports = self.updates;
        if self.updates {
            self.reported.end(unvisited, emit);
        } else {
            self.reported.forget();
        }
        self.settle(emit);
    }

    /// Sends what found no room before.
    pub(super) fn settle(&mut self, emit: Emit<'_>) {
        self.announced.settle(emit);
    }
}
