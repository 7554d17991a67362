#![no_main]

#[path = "../../agent-ebpf/tests/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::handshake::run(bytes));
