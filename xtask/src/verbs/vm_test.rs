//! `cargo xtask vm-test`: the agent on kernels other than this host's, in emulated machines.
//!
//! Emulation (QEMU's TCG) needs no special hardware and no privilege. It is ten to twenty times slower than the host:
//! good for what loads, attaches and counts, worthless for what it costs.

mod cpio;
mod debian;
mod initramfs;
mod libraries;
mod machine;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;

use self::machine::Machine;
use super::{cargo, executable, target_dir};
use crate::process::{Running, Stop};
use crate::setup;

/// What runs in a machine is built along with what it starts, in the profile that `cargo xtask test` uses.
const BUILD: &str =
    "build --workspace --bins --test privileged --locked --message-format=json-render-diagnostics";
const PROFILE_DIR: &str = "debug";

/// The tests that need little beside the binaries. The others start Python, or a shell with `setpriv` and `unshare`.
const TESTS: &[&str] = &["load::", "segments::", "stream::", "memory::", "kill::"];

/// Far beyond what a run takes (about two minutes on two cores).
const LIMIT: Duration = Duration::from_secs(300);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The kernel to test on [default: each].
    #[arg(long, value_enum)]
    kernel: Option<Kernel>,
}

/// Debian's kernel series for cloud machines.
#[derive(Clone, Copy, ValueEnum)]
enum Kernel {
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    fn series(self) -> debian::Series {
        match self {
            Kernel::V6_1 => debian::Series { version: "6.1", suite: "bookworm" },
            Kernel::V6_12 => debian::Series { version: "6.12", suite: "trixie" },
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "the machines are x86-64, and this host's binaries are not");
    let stop = Stop::install()?;
    setup::emulator(&stop)?;
    let folder = target_dir().join("vm");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let programs = build(&stop)?;
    let chosen = arguments.kernel.map_or(Kernel::value_variants().to_vec(), |kernel| vec![kernel]);
    let mut failed = Vec::new();
    for kernel in chosen {
        let series = kernel.series();
        println!("\n==> Linux {}", series.version);
        let begun = Instant::now();
        let outcome = test(&stop, &folder, &series, &programs);
        stop.check()?;
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("==> Linux {}: ok, {seconds:.0} s", series.version),
            Err(error) => {
                println!("==> Linux {}: FAILED after {seconds:.0} s: {error:#}", series.version);
                failed.push(series.version);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed on Linux {}", failed.join(", "));
    }
    Ok(())
}

fn test(
    stop: &Stop,
    folder: &Path,
    series: &debian::Series,
    programs: &[(&str, PathBuf)],
) -> anyhow::Result<()> {
    let kernel = debian::kernel(stop, folder, series)?;
    println!("{}", kernel.name);
    let initramfs = folder.join(format!("initramfs-{}.cpio", series.version));
    initramfs::write(&initramfs, programs, &kernel.modules)?;
    let log = folder.join(format!("serial-{}.log", series.version));
    let machine =
        Machine { image: &kernel.image, initramfs: &initramfs, arguments: TESTS, log: &log, limit: LIMIT };
    machine.run(stop)
}

/// Builds what goes into a machine; returns path in the machine and file here.
fn build(stop: &Stop) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let mut running = Running::start(cargo(BUILD).stdout(Stdio::piped()))?;
    let pipe = running.child.stdout.take().context("no stdout")?;
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(pipe).lines().map_while(Result::ok);
        lines.filter_map(|line| executable(&line, "privileged")).last()
    });
    let status = running.wait(stop)?;
    ensure!(status.success(), "the build failed: {status}");
    let tests = reader.join().ok().flatten().context("the privileged tests were not built")?;
    let binaries = target_dir().join(PROFILE_DIR);
    Ok(vec![
        ("init", binaries.join("vm-init")),
        ("bin/headroom-agent", binaries.join("headroom-agent")),
        ("bin/headroom-server", binaries.join("headroom-server")),
        ("bin/headroom-load", binaries.join("headroom-load")),
        ("bin/privileged", tests),
        ("bin/ss", libraries::command("ss")?),
    ])
}
