//! What is known of each connection's handshake, kept until it closes.
//!
//! A million connections of one service differ in little: heads are kept once for all that share them, and a connection
//! costs some 30 bytes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::document::Upgrade;
use crate::kernel::Handshake;
use crate::model::upgrade;

/// Heads that differ. Beyond, connections with new ones go without: somebody varies them to no end.
const DISTINCT: usize = 16_384;

/// A connection's share.
#[derive(Debug)]
struct Known {
    heads: Arc<Heads>,
    latency_us: u32,
    tcp_handshake_us: u32,
}

/// The request, what of it is kept, in an order that can be hashed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Heads([Option<String>; 7]);

/// All of them, by socket cookie.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    by_cookie: HashMap<u64, Known>,
    heads: HashSet<Arc<Heads>>,
    /// Connections open when this was asked last.
    open: u64,
    show_query: bool,
}

impl Handshakes {
    pub(super) fn new(show_query: bool) -> Self {
        Self { show_query, ..Self::default() }
    }

    /// Takes note of a handshake; returns what is to be said of it, `None` where nothing of it was seen.
    pub(super) fn opened(&mut self, handshake: &Handshake) -> Option<Upgrade> {
        let opened = &handshake.opened;
        if opened.requested_ns == 0 && opened.handshake_us == 0 && handshake.response.is_empty() {
            return None;
        }
        let heads = Heads::of(upgrade(&handshake.request, &handshake.response, self.show_query));
        let latency_ns = match opened.requested_ns {
            0 => 0,
            requested => opened.time_ns.saturating_sub(requested),
        };
        let heads = match self.heads.get(&heads) {
            Some(known) => Arc::clone(known),
            None => Arc::new(heads),
        };
        let known = Known {
            heads: Arc::clone(&heads),
            // A latency below a microsecond is one all the same: 0 stands for none.
            latency_us: u32::try_from(latency_ns.div_ceil(1000)).unwrap_or(u32::MAX),
            tcp_handshake_us: opened.handshake_us,
        };
        let told = known.told();
        if self.heads.len() < DISTINCT || self.heads.contains(&heads) {
            self.heads.insert(heads);
            self.by_cookie.insert(opened.cookie, known);
        }
        Some(told)
    }

    /// What is known of a connection.
    pub(super) fn of(&self, cookie: u64) -> Option<Upgrade> {
        self.by_cookie.get(&cookie).map(Known::told)
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, cookie: u64) {
        let Some(known) = self.by_cookie.remove(&cookie) else {
            return;
        };
        // One is the set's, one is the one just removed.
        if Arc::strong_count(&known.heads) == 2 {
            self.heads.remove(&known.heads);
        }
    }

    /// Forgets connections whose close was lost, once there are far more known than open.
    pub(super) fn bound(&mut self, open: u64) {
        // Closes that are not read yet are of connections that were open a moment ago.
        let recently = self.open.max(open);
        self.open = open;
        let most = 1024 + 2 * usize::try_from(recently).unwrap_or(usize::MAX / 4);
        if self.by_cookie.len() > most {
            self.by_cookie.clear();
            self.heads.clear();
        }
    }
}

impl Heads {
    fn of(upgrade: Upgrade) -> Self {
        let Upgrade { path, query, host, origin, user_agent, subprotocol, extensions, .. } = upgrade;
        Self([path, query, host, origin, user_agent, subprotocol, extensions])
    }
}

impl Known {
    fn told(&self) -> Upgrade {
        let seconds = |microseconds: u32| (microseconds != 0).then(|| f64::from(microseconds) / 1e6);
        let [path, query, host, origin, user_agent, subprotocol, extensions] = self.heads.0.clone();
        Upgrade {
            path,
            query,
            host,
            origin,
            user_agent,
            subprotocol,
            extensions,
            latency_seconds: seconds(self.latency_us),
            tcp_handshake_seconds: seconds(self.tcp_handshake_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_ebpf::abi::Opened;

    use super::*;

    fn handshake(cookie: u64, path: &str) -> Handshake {
        let opened = Opened { cookie, time_ns: 5_000, requested_ns: 2_000, ..Opened::default() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
        Handshake { opened, request, response: Vec::new() }
    }

    #[test]
    fn equal_heads_are_kept_once_and_go_with_the_last() {
        let mut handshakes = Handshakes::new(false);
        for cookie in 1..=3 {
            let told = handshakes.opened(&handshake(cookie, "/chat")).expect("seen");
            assert_eq!((told.path.as_deref(), told.latency_seconds), (Some("/chat"), Some(3e-6)));
        }
        handshakes.opened(&handshake(4, "/other"));
        assert_eq!((handshakes.by_cookie.len(), handshakes.heads.len()), (4, 2));
        handshakes.closed(1);
        handshakes.closed(2);
        assert_eq!(handshakes.of(3).and_then(|upgrade| upgrade.path).as_deref(), Some("/chat"));
        handshakes.closed(3);
        assert_eq!((handshakes.of(3), handshakes.heads.len()), (None, 1));
    }

    #[test]
    fn lost_closes_do_not_add_up() {
        let mut handshakes = Handshakes::new(false);
        for cookie in 0..2_000 {
            handshakes.opened(&handshake(cookie, "/chat"));
        }
        handshakes.bound(1_000);
        assert_eq!(handshakes.by_cookie.len(), 2_000);
        handshakes.bound(10);
        assert_eq!(handshakes.by_cookie.len(), 2_000, "their closes may be on their way");
        handshakes.bound(10);
        assert!(handshakes.by_cookie.is_empty());
    }
}
