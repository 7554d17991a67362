//! `cargo xtask test`: every check and every test, and one line that counts them.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::{bench, build_ebpf, cargo, conformance, executable, target_dir, vm_test};
use crate::process::{Running, Stop};
use crate::setup;
use crate::skip::{self, Skip};
use crate::tally::Tally;

/// The profile of everything that is started end to end. The dev profile, as `cargo test` has most of it built already.
const PROFILE_DIR: &str = "debug";

const FORMAT: &str = "fmt --all --check";
/// A workspace of its own, which needs a nightly compiler for more than this.
const FORMAT_FUZZ: &str = "fmt --manifest-path fuzz/Cargo.toml --check";
const CLIPPY: &str = "clippy --quiet --workspace --all-targets --locked -- -D warnings";
/// `--all-targets` leaves out what `cargo test` does not run by itself.
const CLIPPY_PRIVILEGED: &str = "clippy --quiet --workspace --bins --test privileged --locked -- -D warnings";
const CLIPPY_EBPF: &str = "clippy --quiet --locked --profile ebpf --package agent-ebpf --bin headroom-ebpf \
                           --features programs -- -D warnings";
const CLIPPY_NO_KERNEL: &str = "clippy --quiet --locked --package agent --no-default-features -- -D warnings";
/// The privileged tests are built along with what they start, and run without cargo: selected alone, they would have
/// cargo build half of the workspace once more.
const BINARIES: &str =
    "build --workspace --bins --test privileged --locked --message-format=json-render-diagnostics";
const TESTS: &str = "test --workspace --no-fail-fast --locked";

/// Runs every step, whatever became of the ones before.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let mut run =
        Run { stop: Stop::install()?, start: Instant::now(), tally: Tally::default(), failed: Vec::new() };
    // Not a step that can fail: what cannot run for want of it is skipped, or fails by itself.
    run.announce("set up");
    if let Err(error) = setup::install(&run.stop) {
        println!("{error:#}");
    }
    run.step("format", |run| {
        run.cargo(FORMAT)?;
        run.cargo(FORMAT_FUZZ)
    })?;
    run.step("clippy", |run| run.cargo(CLIPPY))?;
    run.step("clippy, privileged tests", |run| run.cargo(CLIPPY_PRIVILEGED))?;
    run.step("clippy, eBPF programs", |run| {
        // Elsewhere than the build, whose bitcode file a check would take for stale.
        run.command(cargo(CLIPPY_EBPF).env("CARGO_TARGET_DIR", target_dir().join("ebpf-check")))
    })?;
    run.step("clippy, agent without the kernel", |run| run.cargo(CLIPPY_NO_KERNEL))?;
    let mut object = None;
    run.step("build the eBPF object", |_| {
        let contents = build_ebpf::object()?;
        build_ebpf::describe(&contents);
        object = Some(contents);
        Ok(())
    })?;
    let mut privileged: Option<PathBuf> = None;
    run.step("build the binaries", |run| {
        let (status, lines) = run.output(&mut cargo(BINARIES), false)?;
        privileged = lines.iter().find_map(|line| executable(line, "privileged"));
        successful(status)
    })?;
    let binaries = target_dir().join(PROFILE_DIR);
    run.step("verify the eBPF programs", |_| {
        build_ebpf::verify(object.as_ref().context("the object was not built")?, &binaries, false)
    })?;
    run.step("test", |run| run.cargo(TESTS))?;
    run.step("conformance, a subset", |run| {
        conformance::subset(&run.stop, &binaries.join("headroom-server"))
    })?;
    run.step("scale, a few thousand", |run| bench::scale::small(&run.stop, PROFILE_DIR))?;
    run.step("test, privileged", |run| {
        let mut command = Command::new(privileged.as_ref().context("they were not built")?);
        run.command(command.env("HEADROOM_BIN_DIR", &binaries))
    })?;
    // The oldest kernel there is support for, whose verifier refuses most; `cargo xtask vm-test` has the others.
    run.step("test, Linux 6.1 in an emulated machine", |run| {
        vm_test::prepare(&run.stop)?;
        let object = object.as_ref().context("the object was not built")?;
        let tests = privileged.as_ref().context("the tests were not built")?;
        vm_test::boot(&run.stop, vm_test::Kernel::V6_1, object, tests, false, &mut run.tally)
    })?;
    Ok(run.close())
}

struct Run {
    stop: Stop,
    start: Instant,
    tally: Tally,
    failed: Vec<&'static str>,
}

impl Run {
    fn announce(&self, name: &str) {
        println!("\n==> {name} (at {:.0} s)", self.start.elapsed().as_secs_f64());
    }

    /// Only an interruption ends the run.
    fn step(
        &mut self,
        name: &'static str,
        body: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.announce(name);
        let (begun, failures) = (Instant::now(), self.tally.failed);
        let outcome = body(self);
        self.stop.check()?;
        let seconds = begun.elapsed().as_secs_f64();
        let Err(error) = outcome else {
            println!("==> {name}: ok, {seconds:.1} s");
            return Ok(());
        };
        if error.is::<Skip>() && !skip::is_forbidden() {
            println!("==> {name}: skipped: {error:#}");
            self.tally.skipped += 1;
            return Ok(());
        }
        println!("==> {name}: FAILED after {seconds:.1} s: {error:#}");
        self.failed.push(name);
        // A runner that died, and a check that is no test, leave no count behind.
        self.tally.failed += u64::from(self.tally.failed == failures);
        Ok(())
    }

    fn cargo(&mut self, arguments: &str) -> anyhow::Result<()> {
        self.command(&mut cargo(arguments))
    }

    /// Runs a command, shows what it prints, and adds up what its tests say.
    fn command(&mut self, command: &mut Command) -> anyhow::Result<()> {
        let (status, lines) = self.output(command, true)?;
        for counts in lines.iter().filter_map(|line| Tally::of_line(line)) {
            self.tally += counts;
        }
        successful(status)
    }

    /// Runs a command to its end, interruptibly.
    fn output(&self, command: &mut Command, show: bool) -> anyhow::Result<(ExitStatus, Vec<String>)> {
        let mut running = Running::start(command.stdout(Stdio::piped()))?;
        let pipe = running.child.stdout.take().context("no stdout")?;
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(pipe).lines().map_while(Result::ok);
            lines
                .inspect(|line| {
                    if show {
                        println!("{line}")
                    }
                })
                .collect()
        });
        let status = running.wait(&self.stop)?;
        Ok((status, reader.join().unwrap_or_default()))
    }

    /// The last line is for machines: nothing but the counts.
    fn close(self) -> ExitCode {
        println!("\n==> done in {:.0} s", self.start.elapsed().as_secs_f64());
        for name in &self.failed {
            println!("==> failed: {name}");
        }
        println!("{}", self.tally);
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn successful(status: ExitStatus) -> anyhow::Result<()> {
    ensure!(status.success(), "{status}");
    Ok(())
}
