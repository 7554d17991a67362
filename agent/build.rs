//! Builds the eBPF object and hands its path to `kernel::object`, so that a plain `cargo build` yields a whole agent.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "kernel")]
    object();
}

#[cfg(feature = "kernel")]
fn object() {
    use std::path::Path;

    use xtask::ebpf;

    let programs = ebpf::workspace_root().join("agent-ebpf");
    println!("cargo::rerun-if-changed={}", programs.display());
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    match ebpf::build(&Path::new(&out).join("ebpf"), ebpf::Emit::Object) {
        Ok(object) => {
            println!("cargo::rustc-env=HEADROOM_BPF_OBJECT={}", object.display());
            let contents = ebpf::inspect(&object).expect("the object was read when it was built");
            let uses = contents.programs.iter().map(|(name, program)| (name, &program.globals));
            let uses = format!("&{:?}", uses.collect::<Vec<_>>()).replace('{', "&[").replace('}', "]");
            std::fs::write(Path::new(&out).join("globals.rs"), uses).expect("OUT_DIR can be written");
        }
        Err(error) => {
            println!("cargo::error=eBPF programs: {error}");
        }
    }
}
