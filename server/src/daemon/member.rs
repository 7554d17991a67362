//! The name of a connection, for the rest of the server: a socket by its descriptor, a stream by the HTTP/2 connection it is
//! on and its place there.
//!
//! A connection's number, not its descriptor: sessions on its streams may outlive the socket for a moment, and the
//! descriptor comes again at once.

use std::os::fd::RawFd;

/// Sockets come before streams, and the streams of one HTTP/2 connection are neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member(u64);

impl Member {
    /// The first of all.
    pub(super) const FIRST: Self = Self(0);

    pub(super) fn socket(descriptor: RawFd) -> Self {
        // Those of open files are never negative.
        Self(u64::from(descriptor.unsigned_abs()))
    }

    /// `connection` counts from 1.
    pub(super) fn stream(connection: u32, place: u32) -> Self {
        Self(u64::from(connection) << 32 | u64::from(place))
    }

    /// `None` for a stream.
    pub(super) fn descriptor(self) -> Option<RawFd> {
        RawFd::try_from(self.0).ok()
    }

    /// The number of the HTTP/2 connection it is on; 0 for a socket.
    pub(super) fn connection(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The next possible one.
    pub(super) fn after(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_streams_are_told_apart_and_sorted() {
        let socket = Member::socket(RawFd::MAX);
        assert_eq!((socket.descriptor(), socket.connection()), (Some(RawFd::MAX), 0));
        let stream = Member::stream(1, u32::MAX);
        assert_eq!((stream.descriptor(), stream.connection()), (None, 1));
        assert!(socket < Member::stream(1, 0) && stream < Member::stream(2, 0));
        assert_eq!(Member::stream(1, 0).after(), Member::stream(1, 1));
    }
}
