//! Every open connection that is a socket's only one, by its descriptor.
//!
//! The kernel gives out the lowest free descriptor, so a vector indexed by it is dense, needs no free list and no
//! hashing, and is a timer wheel as it stands: connections whose descriptors leave the same remainder are one slot.
//! While a connection is active its entry points to what its task listens to; while it is parked the entry *is* the
//! connection, and nothing on the heap belongs to it.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::door::Door;
use super::quiet::Patience;
use super::rooms::Service;
use crate::deflate::Agreed;
use crate::pulse::Pulse;

/// A ping is due.
pub(super) const PING: u32 = 1;
/// The server is going away.
pub(super) const DRAIN: u32 = 2;
/// A message to relay is waiting.
pub(super) const MAIL: u32 = 4;
/// It has been quiet for long enough to be parked.
pub(super) const PARK: u32 = 8;
/// An active connection as the rest of the server reaches it.
#[derive(Default)]
pub(super) struct Beat {
    pub(super) pulse: Pulse,
    gone: AtomicBool,
    /// [`super::quiet::Quiet`]'s clock when something last happened on it.
    pub(super) stirred: AtomicU32,
    /// Turns of the wheel done when the connection opened; wraps with them.
    pub(super) joined: u32,
    /// How long it must be quiet before it is parked.
    pub(super) patience: Patience,
}

impl Beat {
    pub(super) fn new(joined: u32, patience: Patience) -> Self {
        Self { joined, patience, ..Self::default() }
    }

    /// The connection has ended or is parked: whoever still holds this may forget it.
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
        self.pulse.forget();
    }

    pub(super) fn gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// What a connection is while it is idle, besides the byte stream that carries it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    /// Pings sent; wraps.
    pub(super) pings: u32,
    /// As in [`Beat`].
    pub(super) joined: u32,
    /// In a room: number of the next message it is to get.
    pub(super) cursor: u32,
    /// Which way it came in.
    pub(super) door: Door,
    /// Pings since the peer last sent anything.
    pub(super) unanswered: u16,
    /// The quiet clock's last bits when it was parked.
    pub(super) since: u16,
    pub(super) service: Service,
    pub(super) patience: Patience,
    /// The compression negotiated. What the peer may still refer to is kept elsewhere: most have none.
    pub(super) deflate: Option<Agreed>,
}

/// An idle connection on a socket of its own: all there is of it in user space.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) socket: OwnedFd,
    pub(super) idle: Idle,
    pub(super) stage: Stage,
}

/// Whether a parked connection is coming to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Open,
    /// Our Close has been written; the peer's answer is the end.
    Closing,
}

pub(super) enum Entry {
    Vacant,
    Active(Arc<Beat>),
    Parked(Parked),
}

/// What an idle connection costs; growth should be deliberate.
const _: () = assert!(size_of::<Entry>() == 32);

/// The entries.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
}

impl Table {
    /// One more than the highest descriptor that may have an entry.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get_mut(&mut self, descriptor: usize) -> Option<&mut Entry> {
        self.entries.get_mut(descriptor)
    }

    pub(super) fn parked_mut(&mut self, descriptor: usize) -> Option<&mut Parked> {
        match self.entries.get_mut(descriptor) {
            Some(Entry::Parked(parked)) => Some(parked),
            _ => None,
        }
    }

    pub(super) fn insert(&mut self, descriptor: RawFd, entry: Entry) {
        let index = index(descriptor);
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || Entry::Vacant);
        }
        self.entries[index] = entry;
    }

    /// Makes a parked connection an active one.
    pub(super) fn activate(&mut self, descriptor: usize, beat: Arc<Beat>) -> Option<Parked> {
        let entry = self.entries.get_mut(descriptor)?;
        if !matches!(entry, Entry::Parked(_)) {
            return None;
        }
        match std::mem::replace(entry, Entry::Active(beat)) {
            Entry::Parked(parked) => Some(parked),
            Entry::Vacant | Entry::Active(_) => None,
        }
    }

    /// Takes a parked connection out.
    pub(super) fn take(&mut self, descriptor: usize) -> Option<Parked> {
        let entry = self.entries.get_mut(descriptor)?;
        if !matches!(entry, Entry::Parked(_)) {
            return None;
        }
        let taken = std::mem::replace(entry, Entry::Vacant);
        self.shrink();
        match taken {
            Entry::Parked(parked) => Some(parked),
            Entry::Vacant | Entry::Active(_) => None,
        }
    }

    /// Forgets a connection, before its descriptor is closed and may come again.
    pub(super) fn vacate(&mut self, descriptor: RawFd) {
        if let Some(entry) = self.entries.get_mut(index(descriptor)) {
            *entry = Entry::Vacant;
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        while matches!(self.entries.last(), Some(Entry::Vacant)) {
            self.entries.pop();
        }
        // A spike of connections must not be paid for for ever.
        if self.entries.capacity() > 4 * self.entries.len().max(64) {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }
}

impl Parked {
    pub(super) fn descriptor(&self) -> usize {
        index(self.socket.as_raw_fd())
    }
}

/// A descriptor as an index; those of open files are never negative.
pub(super) fn index(descriptor: RawFd) -> usize {
    usize::try_from(descriptor).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shrinks_behind_the_last_connection() {
        let mut table = Table::default();
        for descriptor in 0..10_000 {
            table.insert(descriptor, Entry::Active(Arc::default()));
        }
        for descriptor in (0..10_000).rev().filter(|descriptor| *descriptor != 5) {
            table.vacate(descriptor);
        }
        assert_eq!(table.len(), 6);
        assert!(table.entries.capacity() <= 256);
        assert!(matches!(table.get_mut(5), Some(Entry::Active(_))));
    }
}
