//! Connections older than the agent become known one after the other. The count rises, and nothing else does.

use std::time::{Duration, Instant};

use agent::document::{Body, Kind, Trend};
use anyhow::{Context as _, ensure};

use crate::agent_process::Run;
use crate::load;
use crate::pace::patient;
use crate::process::SOON;

const CONNECTIONS: usize = 300;
/// Longer than a trend needs to be seen.
const WATCHED: Duration = Duration::from_secs(20);

pub(crate) fn recognising_is_neither_growth_nor_a_price() -> anyhow::Result<()> {
    let (server, address) = load::server()?;
    let _crowd = load::load(address, CONNECTIONS, 1, &["--rate", "500"])?;
    std::thread::sleep(patient(Duration::from_secs(3)));
    let mut agent = Run::attach(&["--port", &address.port().to_string(), "--interval", "250ms"])?;
    let scope = format!("process:{}", server.pid());
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < patient(WATCHED) {
        let Body::Tick(tick) = agent.next(SOON)?.context("the agent ended")?.body else { continue };
        let mine =
            |ceiling: &&agent::document::Ceiling| ceiling.kind == Kind::Descriptors && ceiling.scope == scope;
        let Some(ceiling) = tick.ceilings.iter().find(mine) else { continue };
        most = most.max(ceiling.connections);
        ensure!(ceiling.cost_per_connection == Some(1.0), "a descriptor is one: {ceiling:?}");
        ensure!(ceiling.trend != Trend::Growing, "nothing grows: {ceiling:?}");
        let host = tick.ceilings.iter().find(|one| one.kind == Kind::Memory && one.scope == "host");
        let host = host.context("no ceiling of the host's memory")?;
        ensure!(host.trend != Trend::Growing, "nothing grows: {host:?}");
    }
    ensure!(most as usize == CONNECTIONS, "{most} connections were recognised");
    Ok(())
}
