//! What the tests need of the machine, installed where that is missing and possible.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::apt::Apt;
use crate::process::{self, Running, Stop};
use crate::verbs::target_dir;

/// A command that says whether something is there, and the Debian package that brings it.
const NEEDED: &[(&[&str], &str)] = &[
    (&["ss", "-V"], "iproute2"),
    (&["script", "--version"], "bsdutils"),
    (&["setpriv", "--version"], "util-linux"),
    (&["unshare", "--version"], "util-linux"),
    (&["mount", "--version"], "mount"),
    (&["nft", "--version"], "nftables"),
    (&["awk", "BEGIN {}"], "mawk"),
    (&["python3", "--version"], "python3"),
    (&["python3", "-c", "import venv, ensurepip"], "python3-venv"),
    // Debian's Python sees it, another may not.
    (&["/usr/bin/python3", "-c", "import prometheus_client"], "python3-prometheus-client"),
    (&["systemd-socket-activate", "--version"], "systemd"),
    // Servers, each with the language it needs. A Node of another origin does not know Debian's folder.
    (&["env", "NODE_PATH=/usr/share/nodejs", "node", "-e", "require('ws')"], "node-ws"),
    // A client of the server's HTTP/2, with the page that comes with it.
    (&["chromium", "--version"], "chromium"),
    (&["perl", "-MMojolicious", "-e", "1"], "libmojolicious-perl"),
    (&["websocketd", "--version"], "websocketd"),
    (&["sh", "-c", "command -v libwebsockets-test-server"], "libwebsockets-test-server"),
];

/// Components of the toolchain that a minimal one lacks, by the name of cargo's subcommand.
const COMPONENTS: &[(&str, &str)] = &[("fmt", "rustfmt"), ("clippy", "clippy")];

/// What `cargo xtask vm-test` needs.
const EMULATOR: &[(&[&str], &str)] =
    &[(&["qemu-system-x86_64", "--version"], "qemu-system-x86"), (&["ss", "-V"], "iproute2")];

/// Installs what is missing. An error names what somebody else has to install; most tests run without it.
pub(crate) fn install(stop: &Stop) -> anyhow::Result<()> {
    for (subcommand, component) in COMPONENTS {
        if !works(&["cargo", subcommand, "--version"]) {
            run(stop, &["rustup", "component", "add", component])?;
        }
    }
    // Both, whatever becomes of the first.
    let installed = packages(stop, NEEDED, "some privileged tests cannot run here");
    let unpacked = nginx(stop);
    installed.and(unpacked)
}

/// Unpacks nginx where it is not installed. Debian's would start with the installation, serve port 80, and start again
/// with the machine.
fn nginx(stop: &Stop) -> anyhow::Result<()> {
    if works(&["nginx", "-v"]) {
        return Ok(());
    }
    let folder = target_dir().join("nginx");
    let (apt, package) = (Apt::of_machine(), "nginx");
    if apt.unpack(stop, package, &folder).is_err() {
        stop.check()?;
        // The lists of packages may be absent or old.
        ensure!(process::is_root(), "the test of a proxy cannot run here: install {package}");
        run(stop, &["apt-get", "update"])?;
        apt.unpack(stop, package, &folder)?;
    }
    let binary = folder.join("usr/sbin/nginx");
    let words = [binary.to_str().context("the target directory's name is not UTF-8")?, "-v"];
    ensure!(works(&words), "{} does not run: install {package}, or what it needs", words[0]);
    Ok(())
}

/// Installs the emulator and what goes into its machines, where they are missing.
pub(crate) fn emulator(stop: &Stop) -> anyhow::Result<()> {
    packages(stop, EMULATOR, "no machine can be emulated here")
}

/// Installs those packages whose probe fails; `lack` says what is the matter where that cannot be done.
fn packages(stop: &Stop, needed: &[(&[&str], &str)], lack: &str) -> anyhow::Result<()> {
    let mut packages: Vec<&str> =
        needed.iter().filter(|(probe, _)| !works(probe)).map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    ensure!(
        process::is_root() && works(&["apt-get", "--version"]),
        "{lack}: install {} (Debian: apt-get install {})",
        packages.join(", "),
        packages.join(" ")
    );
    run(stop, &["apt-get", "update"])?;
    run(stop, &[&["apt-get", "install", "--yes", "--no-install-recommends"], &packages[..]].concat())
}

fn works(command: &[&str]) -> bool {
    let status = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn run(stop: &Stop, command: &[&str]) -> anyhow::Result<()> {
    let words = command.join(" ");
    println!("{words}");
    let mut started = Command::new(command[0]);
    started.args(&command[1..]).env("DEBIAN_FRONTEND", "noninteractive");
    let status = Running::start(&mut started)?.wait(stop)?;
    ensure!(status.success(), "`{words}` failed: {status}");
    Ok(())
}
