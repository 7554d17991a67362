//! Times and rates on hosts much slower than the ones they were chosen on, as emulated ones are.

use std::time::Duration;

/// How many times slower this host is, by HEADROOM_TEST_SLOWNESS; 1 where that is not set.
fn slowness() -> u32 {
    let told = std::env::var("HEADROOM_TEST_SLOWNESS").ok();
    told.and_then(|number| number.parse().ok()).unwrap_or(1).max(1)
}

/// A time that what happens meanwhile must fit into.
pub(crate) fn patient(time: Duration) -> Duration {
    time * slowness()
}

/// Messages a second.
pub(crate) fn gentle(rate: u32) -> f64 {
    f64::from(rate) / f64::from(slowness())
}
