//! What the service manager is told (sd_notify(3)); without one, nothing happens.

use sd_notify::NotifyState;
use tracing::warn;

/// Connections are served, or settings have been read again.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Settings are being read again; [`ready`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(name: "notify_failed", %error, "cannot read the clock"),
    }
}

/// Connections are being closed.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        // The server is no worse a server for that.
        warn!(name: "notify_failed", %error, "cannot tell the service manager");
    }
}
