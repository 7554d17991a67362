//! What goes wrong for many at once is said once, with how often.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::warn;

use super::Shared;
use super::figures::{Figures, Refused};

/// From one line of the log to the next.
const PERIOD: Duration = Duration::from_secs(10);

/// What is complained of, summed over the listeners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Trouble {
    refused_connections: u64,
    refused_address: u64,
    handshakes_failed: u64,
    ping_timeouts: u64,
    relay_dropped: u64,
    slow_consumers_closed: u64,
}

impl Trouble {
    fn of(shared: &Shared) -> Self {
        Self {
            refused_connections: shared.sum(|figures| figures.refused(Refused::Connections)),
            refused_address: shared.sum(|figures| figures.refused(Refused::Address)),
            handshakes_failed: shared.sum(Figures::all_failed),
            ping_timeouts: shared.sum(|figures| figures.ping_timeouts.get()),
            relay_dropped: shared.sum(|figures| figures.relay_dropped.get()),
            slow_consumers_closed: shared.sum(|figures| figures.slow_closed.get()),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            refused_connections: self.refused_connections - before.refused_connections,
            refused_address: self.refused_address - before.refused_address,
            handshakes_failed: self.handshakes_failed - before.handshakes_failed,
            ping_timeouts: self.ping_timeouts - before.ping_timeouts,
            relay_dropped: self.relay_dropped - before.relay_dropped,
            slow_consumers_closed: self.slow_consumers_closed - before.slow_consumers_closed,
        }
    }
}

/// What has been said of it.
#[derive(Default)]
pub(super) struct Complaints {
    said: Trouble,
}

impl Complaints {
    /// Complains every [`PERIOD`] as long as there is something to complain of.
    pub(super) async fn watch(&mut self, shared: &Shared) -> Infallible {
        let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.complain(shared);
        }
    }

    /// Says what has not been said yet.
    pub(super) fn complain(&mut self, shared: &Shared) {
        let now = Trouble::of(shared);
        let new = now.since(&self.said);
        if new == Trouble::default() {
            return;
        }
        self.said = now;
        let Trouble {
            refused_connections,
            refused_address,
            handshakes_failed,
            ping_timeouts,
            relay_dropped,
            slow_consumers_closed,
        } = new;
        warn!(
            name: "trouble",
            refused_connections,
            refused_address,
            handshakes_failed,
            ping_timeouts,
            relay_dropped,
            slow_consumers_closed,
            "since the last such line"
        );
    }
}
