//! Kernel-side logging in aya-log's format, read by aya-log in the agent.
//!
//! aya-log-ebpf declares its ring buffer as a map only when compiled for a BPF target, and this build compiles for the
//! host's. So the macros are taken from aya-log's own macro crate and find here, under the path they expect, the same
//! support module with the map declared unconditionally.

/// What the macros expand to refers to this.
pub(crate) mod macro_support {
    use aya_ebpf::Global;
    use aya_ebpf::macros::map;
    use aya_ebpf::maps::RingBuf;
    pub(crate) use aya_log_common::{
        Argument, DefaultFormatter, DisplayHint, Field, Header, Level, LogValueLength,
    };

    #[map]
    pub(crate) static AYA_LOGS: RingBuf = RingBuf::with_byte_size(1 << 17, 0);

    /// 0 unless the agent asks for logs: the global is frozen before the programs load, so the verifier removes the
    /// logging branches as dead code.
    #[unsafe(no_mangle)]
    static AYA_LOG_LEVEL: Global<u8> = Global::new(0);

    /// Whether records of this level are wanted.
    #[inline(always)]
    pub(crate) fn level_enabled(level: Level) -> bool {
        level as u8 <= AYA_LOG_LEVEL.load()
    }
}
