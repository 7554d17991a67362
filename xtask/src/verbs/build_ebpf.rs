//! `cargo xtask build-ebpf`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use xtask::ebpf::{self, Contents, Emit};

use super::{cargo, target_dir, verifier};
use crate::process::{Running, Stop};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to write.
    #[arg(long, value_enum, default_value_t = Format::Object)]
    emit: Format,
    /// Load the programs into this kernel and compare what they take of the verifier's limits with docs/verifier.md.
    #[arg(long, conflicts_with = "emit")]
    verify: bool,
    /// Write this kernel's figures into docs/verifier.md instead of comparing them.
    #[arg(long, requires = "verify")]
    accept: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// The BPF object that the agent embeds.
    #[default]
    Object,
    /// BPF assembly.
    Asm,
    /// LLVM IR.
    Ir,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let emit = match arguments.emit {
        Format::Object => Emit::Object,
        Format::Asm => Emit::Assembly,
        Format::Ir => Emit::Ir,
    };
    if !matches!(emit, Emit::Object) {
        println!("{}", build(emit)?.display());
        return Ok(());
    }
    let contents = object()?;
    describe(&contents);
    if !arguments.verify {
        return Ok(());
    }
    let stop = Stop::install()?;
    let mut build = cargo("build --quiet --locked --package agent --bin headroom-agent");
    let status = Running::start(&mut build)?.wait(&stop)?;
    ensure!(status.success(), "building headroom-agent failed: {status}");
    verify(&contents, &target_dir().join("debug"), arguments.accept)
}

/// Builds the object and reads it.
pub(super) fn object() -> anyhow::Result<Contents> {
    Ok(ebpf::inspect(&build(Emit::Object)?)?)
}

fn build(emit: Emit) -> anyhow::Result<PathBuf> {
    Ok(ebpf::build(&ebpf::workspace_root().join("target/ebpf"), emit)?)
}

/// Has the agent in `binaries`, which embeds the same object, load it into this kernel.
pub(super) fn verify(contents: &Contents, binaries: &Path, accept: bool) -> anyhow::Result<()> {
    let agent = binaries.join("headroom-agent");
    // It says on stdout what came of it even where it fails.
    let output = Command::new(&agent).args(["check", "--json"]).stderr(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", agent.display()))?;
    verifier::check(contents, &String::from_utf8_lossy(&output.stdout), accept)
}

/// Prints what is in it.
pub(super) fn describe(contents: &Contents) {
    println!("{}  {} bytes", contents.path.display(), contents.size);
    println!("functions");
    for (section, name, instructions, stack) in &contents.functions {
        println!("  {instructions:>5} instructions {stack:>4} bytes of stack  {section:<26} {name}");
    }
    println!("programs with all they call");
    for (name, program) in &contents.programs {
        let (instructions, stack) = (program.instructions, program.stack_bytes);
        println!("  {name:<24} {instructions:>5} instructions, at most {stack} bytes of stack");
    }
    println!("maps");
    for name in &contents.maps {
        println!("  {name}");
    }
}
