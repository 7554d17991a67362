//! One file per verb.

pub(crate) mod build_ebpf;
