//! Headroom's eBPF programs.
//!
//! All of them only read: the packet programs always let the packet pass, the others are iterators and tracepoints.
//! Built by `cargo xtask build-ebpf`; docs/architecture.md says why for the host target and not for `bpfel`.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "every access to kernel memory is a raw pointer that the verifier checks")]

mod log;
mod programs;

// aya-log's macros name their support module by this path; see `log`.
extern crate self as aya_log_ebpf;
pub(crate) use log::macro_support;

/// Lets GPL-only helpers in (`bpf_seq_write`, `bpf_sk_storage_get` in tracing programs). The source is offered under
/// MIT as well, hence the dual form the kernel knows (`license_is_gpl_compatible`).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Nothing here can panic: a reachable loop without an exit would be refused by the verifier.
    loop {}
}
