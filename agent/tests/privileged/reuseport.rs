//! Several processes that listen on one port.

use agent::document::Role;
use anyhow::{Context as _, ensure};

use crate::exchange::{CONNECTIONS, Exchange, announced};
use crate::process::Process;
use crate::python;
use crate::traffic::{self, Account};

const PROCESSES: usize = 3;

pub(crate) fn processes_on_one_port_are_told_apart() -> anyhow::Result<()> {
    let (first, port) = announced(python::start("server.py", &["127.0.0.1", "0"])?)?;
    let mut servers = vec![first];
    while servers.len() < PROCESSES {
        let (server, same) = announced(python::start("server.py", &["127.0.0.1", &port.to_string()])?)?;
        ensure!(same == port, "it listens on {same} instead of {port}");
        servers.push(server);
    }
    let pids: Vec<u32> = servers.iter().map(Process::pid).collect();
    let holders = [(&pids[..], CONNECTIONS)];
    let url = format!("ws://127.0.0.1:{port}/");
    let outcome = Exchange { url, client: &[], ports: &[port], holders: &holders }.run()?;
    // The listener's totals are what the client counted with all of them.
    outcome.check("127.0.0.1", port, &pids)?;

    for mut server in servers {
        let pid = server.pid();
        server.tell("end")?;
        let told = python::result(server)?;
        let accepted = told["accepted"].as_u64().context("server.py did not say how many it accepted")?;
        ensure!(accepted > 0, "the kernel has left {pid} out, which makes this no test");
        let own = outcome.open.processes.iter().find(|process| process.pid == pid);
        let own = own.with_context(|| format!("{pid} is not among the processes"))?;
        ensure!(
            (own.connections, own.websockets) == (accepted, accepted),
            "{pid} has accepted {accepted}: {own:?}"
        );
        let account = Account::told(&told["server"])?;
        let of_process = outcome.of(port, Role::Server).filter(|connection| connection.pid == Some(pid));
        let (number, received, sent) = traffic::sum(of_process, Role::Server)?;
        ensure!(number as u64 == accepted, "{pid} has accepted {accepted}, and {number} closed");
        traffic::equal(&format!("process {pid}"), [&received, &sent], [&account.received, &account.sent])?;
    }
    Ok(())
}
