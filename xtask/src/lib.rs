//! What the agent's build script shares with `cargo xtask build-ebpf`: the eBPF build.

pub mod ebpf;
