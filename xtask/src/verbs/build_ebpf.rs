//! `cargo xtask build-ebpf`.

use clap::ValueEnum;
use xtask::ebpf::{self, Emit};

#[derive(Default, clap::Args)]
pub(crate) struct Arguments {
    /// What to write.
    #[arg(long, value_enum, default_value_t = Format::Object)]
    emit: Format,
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
    let output = ebpf::build(&ebpf::workspace_root().join("target/ebpf"), emit)?;
    if !matches!(emit, Emit::Object) {
        println!("{}", output.display());
        return Ok(());
    }
    let contents = ebpf::inspect(&output)?;
    println!("{}  {} bytes", contents.path.display(), contents.size);
    println!("programs");
    for (section, name, instructions) in &contents.programs {
        println!("  {section:<28} {name:<24} {instructions:>5} instructions");
    }
    println!("maps");
    for name in &contents.maps {
        println!("  {name}");
    }
    Ok(())
}
