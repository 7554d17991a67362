//! Servers driven into their limits by real connections: where they failed, against what the agent had said on the way there.
//!
//! `cargo xtask bench ceilings` runs them all (`privileged --ceilings`); two small ones are tests.

mod bandwidth;
mod cgroup;
mod climb;
mod memory;
mod result;
mod row;
mod servers;
mod sysctl;
mod tables;
mod tcp;

use std::process::ExitCode;

use agent::document::Kind;
use anyhow::{Context as _, ensure};

use climb::{Climb, crowd};
use result::Outcome;
use row::Row;
use servers::{Server, Wrapped};

/// An experiment's name and body.
type Experiment = (&'static str, fn() -> anyhow::Result<Row>);

const EXPERIMENTS: &[Experiment] = &[
    ("descriptors, headroom-server", || descriptors(Server::Reference, 4_000)),
    ("descriptors, websockets (Python)", || descriptors(Server::Python, 2_000)),
    ("descriptors, ws (Node)", || descriptors(Server::Node, 4_000)),
    ("memory, headroom-server", || memory::wall(Server::Reference, 20)),
    ("memory, headroom-server, 8 KiB messages", || memory::wall(Server::ReferenceWithMessages, 40)),
    ("memory, websockets (Python)", || memory::wall(Server::Python, 100)),
    ("memory, websockets (Python), compressed", || memory::wall(Server::PythonDeflate, 200)),
    ("memory, websockets (Python), full send buffers", || memory::wall(Server::PythonFlood, 80)),
    ("memory, ws (Node)", || memory::wall(Server::Node, 80)),
    ("memory, ws (Node), compressed", || memory::wall(Server::NodeDeflate, 300)),
    ("memory of TCP, websockets (Python), full buffers", tcp::wall),
    ("bandwidth, headroom-server", bandwidth::wall),
    ("conntrack, headroom-server", tables::conntrack),
    ("epoll watches, headroom-server", tables::epoll_watches),
];

/// The measurement: every experiment, or those whose name contains `filter`, `repeat` times each.
pub(crate) fn bench(filter: &str, repeat: usize) -> ExitCode {
    let mut results = Vec::new();
    let mut failed = false;
    for (name, body) in EXPERIMENTS.iter().filter(|(name, _)| name.contains(filter)) {
        let mut rows = Vec::new();
        for _ in 0..repeat {
            match body() {
                Ok(row) => {
                    println!("{}", row.line(name));
                    rows.push(row);
                }
                Err(error) => {
                    println!("{name}: {error:#}");
                    failed = true;
                }
            }
        }
        if !rows.is_empty() {
            results.push(Outcome { name, rows });
        }
    }
    println!("\n{}", result::table(&results));
    match result::write(&results) {
        Ok(path) => println!("written to {}", path.display()),
        Err(error) => {
            println!("{error:#}");
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

pub(crate) fn a_descriptor_limit_is_foretold() -> anyhow::Result<()> {
    let row = descriptors(Server::Reference, 1_500)?;
    row.holds(&[(0.25, 0.01), (0.5, 0.01), (0.75, 0.01)])?;
    ensure!(row.first_at(0.5)?, "descriptors were not called the first ceiling: {row:?}");
    Ok(())
}

pub(crate) fn a_memory_limit_is_foretold() -> anyhow::Result<()> {
    let row = memory::wall(Server::Reference, 10)?;
    // Wider than what the measurement shows, on hosts of all kinds.
    row.holds(&[(0.25, 0.2), (0.5, 0.1), (0.75, 0.1)])?;
    ensure!(row.first_at(0.5)?, "memory was not called the first ceiling: {row:?}");
    Ok(())
}

/// The limit is lowered before the server starts, the hard one as well, as some raise the soft one to it. It fails when `accept`
/// does.
fn descriptors(kind: Server, limit: u64) -> anyhow::Result<Row> {
    let (server, address) = kind.start(&Wrapped::by_shell(&format!("ulimit -n {limit}")))?;
    let rate = 400.min(limit / 5);
    let mut climb =
        Climb::start(&server, address.port(), &[], Kind::Descriptors, &format!("process:{}", server.pid()))?;
    let crowd = crowd(kind, address, limit + 500, rate, None)?;
    climb.until_it_stalls()?;
    // An outside witness: the process has no descriptor left.
    let open = climb::descriptors(server.pid()).context("the server's descriptors")?;
    ensure!(open + 2 >= limit, "the server takes no more with {open} of {limit} descriptors open");
    climb.finish_at(&server, address.port(), vec![crowd], limit)
}
