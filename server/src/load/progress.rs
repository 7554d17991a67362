//! Progress on a terminal.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::run::Run;

const REFRESH: Duration = Duration::from_millis(200);
const WIDTH: u64 = 30;

/// Repaints one line on standard error until aborted. The caller has checked that it is a terminal.
pub(super) async fn paint(run: Arc<Run>) {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(REFRESH);
    loop {
        ticks.tick().await;
        let so_far = run.fates.report();
        let tried = so_far.opened + so_far.failed + so_far.refused;
        let line = line(tried, so_far.opened, so_far.requested, started.elapsed());
        // A terminal that went away is no reason to stop the load.
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
    }
}

/// Takes the line away again.
pub(super) fn clear() {
    let _ = write!(std::io::stderr(), "\r\x1b[K");
}

fn line(tried: u64, opened: u64, requested: u64, elapsed: Duration) -> String {
    if tried >= requested {
        return format!("{opened} of {requested} connections open");
    }
    let rate = tried as f64 / elapsed.as_secs_f64().max(1e-3);
    let eta = if tried == 0 { "?".into() } else { format!("{:.0}s", (requested - tried) as f64 / rate) };
    let full = (tried * WIDTH / requested.max(1)) as usize;
    let bar = format!("{}{}", "#".repeat(full), "-".repeat(WIDTH as usize - full));
    format!("[{bar}] {opened}/{requested} open, {rate:.0}/s, ETA {eta}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_count_rate_and_eta() {
        let text = line(500, 500, 1000, Duration::from_secs(1));
        assert_eq!(text, "[###############---------------] 500/1000 open, 500/s, ETA 1s");
        assert!(line(0, 0, 10, Duration::ZERO).ends_with("ETA ?"));
        assert_eq!(line(10, 9, 10, Duration::ZERO), "9 of 10 connections open");
    }
}
