//! How many WebSockets there are, by what carries them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What carries a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// HTTP/1.1 on TCP.
    Http1,
    /// HTTP/1.1 on TLS.
    Http1Tls,
    /// A stream of HTTP/2 on TCP.
    Http2,
    /// A stream of HTTP/2 on TLS.
    Http2Tls,
}

impl Over {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Http1, Self::Http1Tls, Self::Http2, Self::Http2Tls];

    /// Its name, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http1Tls => "HTTP/1.1 over TLS",
            Self::Http2 => "HTTP/2",
            Self::Http2Tls => "HTTP/2 over TLS",
        }
    }
}

/// WebSockets by [`Over`].
#[derive(Debug, Default)]
pub(super) struct Census {
    open: [AtomicUsize; Over::ALL.len()],
    opened: [AtomicU64; Over::ALL.len()],
}

impl Census {
    /// One more.
    pub(super) fn add(&self, over: Over) {
        self.open[over as usize].fetch_add(1, Ordering::Relaxed);
        self.opened[over as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(super) fn remove(&self, over: Over) {
        self.open[over as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// Open now.
    pub(super) fn open(&self, over: Over) -> usize {
        self.open[over as usize].load(Ordering::Relaxed)
    }

    /// Opened since the server started.
    pub(super) fn opened(&self, over: Over) -> u64 {
        self.opened[over as usize].load(Ordering::Relaxed)
    }
}
