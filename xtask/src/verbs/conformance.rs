//! `cargo xtask conformance`: headroom-server by Autobahn|Testsuite, other people's idea of RFC 6455 and RFC 7692.

mod expected;
mod suite;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::listening::Listening;
use super::{cargo, target_dir};
use crate::process::{Running, Stop};
use expected::SUBSET;
use verdict::Results;

/// The suite's largest message.
const LARGEST: &str = "16MiB";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Cases, such as 6.4.3 or "7.*" [default: all of them, which with compression takes some twenty minutes]
    #[arg(long, value_name = "PATTERN", num_args = 1.., conflicts_with = "subset")]
    cases: Vec<String>,
    /// What `cargo xtask test` runs: sections 1 to 7 and 10 whole, the rest in samples
    #[arg(long)]
    subset: bool,
    /// A headroom-server to test instead of building one
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// Over TLS, with a certificate made for the purpose
    #[arg(long, conflicts_with = "url")]
    tls: bool,
    /// A server that already runs, which must echo and take messages of 16 MiB
    #[arg(long, value_name = "URL", conflicts_with = "server")]
    url: Option<String>,
    /// Flags for headroom-server
    #[arg(last = true, conflicts_with = "url")]
    flags: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let stop = Stop::install()?;
    let cases: Vec<String> = match (&arguments.cases[..], arguments.subset) {
        ([], false) => vec!["*".into()],
        ([], true) => SUBSET.iter().map(|case| (*case).to_owned()).collect(),
        (cases, _) => cases.to_vec(),
    };
    let folder = folder("conformance")?;
    let passed = if let Some(url) = &arguments.url {
        judge(&stop, &folder, url, &cases)?
    } else {
        let binary = match &arguments.server {
            Some(path) => path.clone(),
            None => build(&stop)?,
        };
        let mut flags = arguments.flags.clone();
        if arguments.tls {
            flags.extend(suite::certificate(&stop, &folder)?);
        }
        let scheme = if arguments.tls { "wss" } else { "ws" };
        let server = serve(&stop, &binary, &folder, scheme, &flags)?;
        judge(&stop, &folder, &format!("{}/echo", server.url), &cases)?
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The step of `cargo xtask test`: the subset against a headroom-server that is built already.
pub(super) fn subset(stop: &Stop, binary: &Path) -> anyhow::Result<()> {
    let folder = folder("conformance-subset")?;
    let server = serve(stop, binary, &folder, "ws", &[])?;
    let cases: Vec<String> = SUBSET.iter().map(|case| (*case).to_owned()).collect();
    ensure!(judge(stop, &folder, &format!("{}/echo", server.url), &cases)?, "not conformant");
    Ok(())
}

fn folder(name: &str) -> anyhow::Result<PathBuf> {
    let folder = target_dir().join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

fn build(stop: &Stop) -> anyhow::Result<PathBuf> {
    println!("building headroom-server (the first time takes some minutes)");
    let mut command = cargo("build --release --locked --package server --bin headroom-server");
    let status = Running::start(&mut command)?.wait(stop)?;
    ensure!(status.success(), "the build failed: {status}");
    Ok(target_dir().join("release/headroom-server"))
}

fn serve(
    stop: &Stop,
    binary: &Path,
    folder: &Path,
    scheme: &str,
    flags: &[String],
) -> anyhow::Result<Listening> {
    let mut command = Command::new(binary);
    let listen = format!("{scheme}://127.0.0.1:0");
    command.args(["--listen", &listen, "--max-message-size", LARGEST]).args(flags);
    Listening::start(stop, &mut command, "headroom-server", folder)
}

/// Runs the cases, prints what came of them, and says whether that is good enough.
fn judge(stop: &Stop, folder: &Path, url: &str, cases: &[String]) -> anyhow::Result<bool> {
    let program = suite::program(stop)?;
    let begun = Instant::now();
    let index = suite::fuzz(stop, &program, folder, url, cases)?;
    let results = Results::parse(&index)?;
    println!("\n{results}");
    for (case, reason) in results.informational() {
        println!("informational, as expected: {case}: {reason}");
    }
    let complaints = results.complaints(cases);
    for complaint in &complaints {
        println!("not good enough: {complaint}");
    }
    println!(
        "{} cases in {:.0} s, {} not good enough; the report is {}",
        results.len(),
        begun.elapsed().as_secs_f64(),
        complaints.len(),
        folder.join("report/index.html").display()
    );
    Ok(complaints.is_empty())
}
