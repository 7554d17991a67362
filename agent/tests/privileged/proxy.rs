//! A proxy between the two: each of its WebSockets is two connections, one in each role.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agent::document::Role;
use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::binaries;
use crate::exchange::{CONNECTIONS, Exchange, announced, free_port, listening};
use crate::process::{Process, until};
use crate::python;
use crate::traffic::{self, Account};

pub(crate) fn both_sides_of_nginx_are_counted_exactly() -> anyhow::Result<()> {
    let backend = python::start("server.py", &["127.0.0.1", "0"])?;
    let (mut backend, behind) = announced(backend)?;
    let nginx = Nginx::start(behind)?;
    let worker = nginx.worker()?;
    let outcome = Exchange {
        url: format!("ws://127.0.0.1:{}/", nginx.port),
        client: &[],
        ports: &[nginx.port, behind],
        holders: &[(&[worker], 2 * CONNECTIONS), (&[backend.pid()], CONNECTIONS)],
    }
    .run()?;
    outcome.check("127.0.0.1", nginx.port, &[worker])?;

    backend.tell("end")?;
    let told = python::result(backend)?;
    let server = Account::told(&told["server"])?;
    for (role, told) in [(Role::Server, &server), (Role::Client, &server.mirrored())] {
        let number = traffic::agree((&outcome.closed, &outcome.last), behind, role, told)?;
        ensure!(number == CONNECTIONS, "{number} of {CONNECTIONS} closed as {role:?} behind the proxy");
    }
    for upstream in outcome.of(behind, Role::Client) {
        ensure!(upstream.pid == Some(worker), "nginx's worker is {worker}: {upstream:?}");
    }
    // The proxy passes on what it gets, so both of its sides carry the same.
    let client = outcome.client()?;
    traffic::equal("the client", [&client.received, &client.sent], [&server.sent, &server.received])
}

/// nginx with one worker and a configuration of its own. Ended when dropped, worker included.
struct Nginx {
    master: Process,
    port: u16,
    #[expect(dead_code, reason = "removed when dropped")]
    folder: TempDir,
}

impl Nginx {
    fn start(behind: u16) -> anyhow::Result<Self> {
        let (folder, port) = (tempfile::tempdir()?, free_port()?);
        let configuration = folder.path().join("nginx.conf");
        std::fs::write(&configuration, configured(folder.path(), port, behind))?;
        let mut command = Command::new(binary()?);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&configuration).args(["-e", "stderr"]);
        let master = Process::start(&mut command).context("Debian's nginx is missing")?;
        let mut nginx = Self { master, port, folder };
        listening(&mut nginx.master, port)?;
        Ok(nginx)
    }

    fn worker(&self) -> anyhow::Result<u32> {
        let master = self.master.pid();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
        let mut pids = children.split_whitespace();
        let (worker, other) = (pids.next().context("nginx has no worker")?, pids.next());
        ensure!(other.is_none(), "nginx has several workers: {children}");
        Ok(worker.parse()?)
    }
}

impl Drop for Nginx {
    /// A killed master leaves its worker behind.
    fn drop(&mut self) {
        let worker = self.worker();
        let _ = self.master.signal(Signal::TERM);
        let ended = until("ending nginx", Duration::from_secs(5), || Ok(!self.master.is_running()?));
        if let (Err(_), Ok(worker)) = (ended, worker)
            && let Some(worker) = Pid::from_raw(worker as i32)
        {
            let _ = kill_process(worker, Signal::KILL);
        }
    }
}

fn configured(folder: &Path, port: u16, behind: u16) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
        .collect();
    format!(
        "daemon off;\n\
         worker_processes 1;\n\
         pid {folder}/pid;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         {temporary}    \
             access_log off;\n    \
             server {{\n        \
                 listen 127.0.0.1:{port};\n        \
                 location / {{\n            \
                     proxy_pass http://127.0.0.1:{behind};\n            \
                     proxy_http_version 1.1;\n            \
                     proxy_set_header Upgrade $http_upgrade;\n            \
                     proxy_set_header Connection upgrade;\n        \
                 }}\n    \
             }}\n\
         }}\n"
    )
}

/// The one that is installed, or the one that `cargo xtask test` has unpacked: installed, Debian's would serve port 80.
fn binary() -> anyhow::Result<PathBuf> {
    let unpacked = binaries::folder()?.parent().context("no target directory")?.join("nginx/usr/sbin/nginx");
    Ok(if unpacked.is_file() { unpacked } else { PathBuf::from("nginx") })
}
