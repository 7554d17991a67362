//! The agent on a kernel whose structures lack a member: this one, with the member's name changed in its BTF.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use agent::document::Role;
use anyhow::{Context as _, ensure};

use crate::agent_process::{Settling, command};
use crate::load;
use crate::pace::patient;
use crate::process::{SOON, run};
use crate::runner::Skip;

const BTF: &str = "/sys/kernel/btf/vmlinux";

pub(crate) fn a_missing_member_costs_the_hooks_that_read_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (server, address) = load::server()?;
    let btf = without("sk_omem_alloc", folder.path())?;
    let snapshot = Settling::attach_through(&wrapper(&btf), address.port(), patient(Duration::from_secs(4)))?;
    let clients = load::load(address, 5, 5, &[])?;
    let snapshot = snapshot.finish(SOON)?;
    let lacks = |hook: &str| {
        let entry = snapshot.host.degraded.iter().find(|entry| entry.probe == hook);
        entry.is_some_and(|entry| entry.reason == "this kernel's struct sock has no member sk_omem_alloc")
    };
    for hook in ["tp_btf/tcp_destroy_sock", "iter/tcp"] {
        ensure!(lacks(hook) && !snapshot.host.hooks.iter().any(|name| name == hook), "{:?}", snapshot.host);
    }
    for hook in ["cgroup_skb/ingress", "cgroup_skb/egress", "iter/task_file", "iter/task"] {
        ensure!(snapshot.host.hooks.iter().any(|name| name == hook), "{hook}: {:?}", snapshot.host);
    }
    let listener = snapshot
        .listeners
        .iter()
        .find(|listener| listener.port == address.port() && listener.role == Role::Server)
        .context("frames are followed all the same")?;
    ensure!(listener.opened == 5 && listener.received.frames > Some(0), "{listener:?}");
    drop((clients, server));

    let btf = without("rcv_nxt", folder.path())?;
    let arguments = ["snapshot", "--json", "--settle", "0"];
    let mut refused = Command::new("unshare");
    refused.args(&wrapper(&btf)[1..]).arg(command(&[])?.get_program()).args(arguments);
    let refused = run(&mut refused, SOON)?;
    ensure!(refused.status.code() == Some(69) && refused.stderr.len() == 1, "{:?}", refused.stderr);
    ensure!(refused.stderr[0].contains("struct tcp_sock has no member rcv_nxt"), "{:?}", refused.stderr);
    Ok(())
}

/// This kernel's BTF with another name for every member of that name.
fn without(member: &str, folder: &Path) -> anyhow::Result<String> {
    let mut btf = std::fs::read(BTF).map_err(|error| Skip(format!("no BTF here: {error}")))?;
    let name = [b"\0", member.as_bytes(), b"\0"].concat();
    let at = btf.windows(name.len()).position(|bytes| bytes == name).context("the name is not there")?;
    btf[at + 1] = b'X';
    let path = folder.join(member);
    std::fs::write(&path, btf)?;
    Ok(path.display().to_string())
}

/// Starts what follows where `btf` is the kernel's.
fn wrapper(btf: &str) -> Vec<&str> {
    const SCRIPT: &str = "mount --bind \"$0\" /sys/kernel/btf/vmlinux && exec \"$@\"";
    vec!["unshare", "--mount", "sh", "-c", SCRIPT, btf]
}
