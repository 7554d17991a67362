//! An agent that is killed takes everything it brought with it, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use crate::agent_process::Run;
use crate::load;
use crate::pace::patient;
use crate::process::{SOON, until};
use crate::websocket;

const ECHOES: usize = 200;

pub(crate) fn killing_the_agent_leaves_the_host_as_it_was() -> anyhow::Result<()> {
    let (server, address) = load::server()?;
    let agent = Run::attach(&["--port", &address.port().to_string()])?;
    let pid = agent.process.pid();
    let mut client = websocket::request(address)?;
    websocket::opened(&mut client)?;
    let crowd = load::load(address, 50, 50, &[])?;
    for _ in 0..ECHOES {
        websocket::echo(&mut client, b"before")?;
    }
    let held = Held::by(pid)?;
    ensure!(held.programs.len() >= 2 && held.maps.len() >= 5, "the agent holds too little: {held:?}");
    ensure!(held.loaded()? == held.counts(), "the kernel does not list what the agent holds: {held:?}");

    agent.process.signal(Signal::KILL)?;
    let ended = agent.process.finish(SOON)?;
    ensure!(!ended.status.success(), "kill -9 ended the agent with {}", ended.status);
    for _ in 0..ECHOES {
        websocket::echo(&mut client, b"after")?;
    }
    // Programs are freed after an RCU grace period, maps after the last program.
    until("freeing what the agent loaded", Duration::from_secs(10), || Ok(held.loaded()? == (0, 0)))?;
    let mut another = websocket::request(address)?;
    websocket::opened(&mut another)?;
    websocket::echo(&mut another, b"a connection that no agent has seen")?;

    std::thread::sleep(patient(Duration::from_secs(4)));
    let report = load::result(crowd)?;
    let connections = &report["connections"];
    ensure!(connections["opened"] == 50 && connections["closed_by_peer"] == 0, "the load: {connections}");
    ensure!(report["sent"]["text"] == report["received"]["text"], "echoes were lost: {report}");
    drop(server);
    Ok(())
}

/// Kernel objects that a process holds through descriptors. By number and not by name: another agent on this host has
/// the same names.
#[derive(Debug)]
struct Held {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl Held {
    fn by(pid: u32) -> anyhow::Result<Self> {
        let mut held = Held { programs: BTreeSet::new(), maps: BTreeSet::new() };
        for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // A descriptor may be closed before it is looked at.
            let Ok(text) = std::fs::read_to_string(entry?.path()) else {
                continue;
            };
            for line in text.lines() {
                let Some((name, number)) = line.split_once(':') else {
                    continue;
                };
                match name {
                    "prog_id" => held.programs.insert(number.trim().parse()?),
                    "map_id" => held.maps.insert(number.trim().parse()?),
                    _ => continue,
                };
            }
        }
        Ok(held)
    }

    fn counts(&self) -> (usize, usize) {
        (self.programs.len(), self.maps.len())
    }

    /// How many of them the kernel still has.
    fn loaded(&self) -> anyhow::Result<(usize, usize)> {
        let (mut programs, mut maps) = (0, 0);
        // An object that goes away during the walk is an error of the walk and no longer loaded.
        for program in aya::programs::loaded_programs().flatten() {
            programs += usize::from(self.programs.contains(&program.id()));
        }
        for map in aya::maps::loaded_maps().flatten() {
            maps += usize::from(self.maps.contains(&map.id()));
        }
        Ok((programs, maps))
    }
}
