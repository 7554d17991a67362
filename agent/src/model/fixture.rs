//! Documents that tests build upon.

use crate::document::{Listener, Role, Traffic};

/// A server's listener that has carried nothing.
pub(super) fn listener(port: u16, connections: u64) -> Listener {
    Listener {
        port,
        role: Role::Server,
        netns: 1,
        connections,
        opened: connections,
        adopted: 0,
        closed: 0,
        received: Traffic::default(),
        sent: Traffic::default(),
        unparsed_bytes: 0,
        refused: Default::default(),
        ping_rtt: Vec::new(),
        pong_delay: Vec::new(),
        stalls: Default::default(),
    }
}
