//! The demonstration on a terminal: the dashboard.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::super::crowd::{Clients, LINK, Server, Stage, TALK, privileged};
use crate::process::Running;

/// The dashboard attaches first, so that it sees the connections open.
const HEAD_START: Duration = Duration::from_secs(3);

pub(super) fn run(stage: &Stage<'_>, server: &Server, seconds: Option<u64>) -> anyhow::Result<()> {
    println!("headroom-load opens {} connections, each with a message every two seconds", stage.connections);
    println!("the dashboard opens; quit it with q");
    let mut command = privileged("headroom");
    command.args(["--port", &server.port.to_string(), "--nic-speed", LINK]);
    let mut dashboard = Running::start_in_foreground(&mut command)?;
    let begun = Instant::now();
    let mut clients = None;
    let over = || seconds.is_some_and(|seconds| begun.elapsed() > Duration::from_secs(seconds));
    while !over() {
        stage.stop.check()?;
        if let Some(status) = dashboard.child.try_wait().context("waiting for the dashboard")? {
            ensure!(status.success(), "the dashboard ended with {status}");
            break;
        }
        if clients.is_none() && begun.elapsed() > HEAD_START {
            clients = Some(Clients::start(stage, server, Duration::from_secs(5), TALK)?);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // Before anything is printed: the screen is the dashboard's while it runs.
    dashboard.end()?;
    if let Some(clients) = clients {
        let result = clients.finish()?;
        println!("headroom-load had opened {} connections", result["connections"]["opened"]);
    }
    Ok(())
}
