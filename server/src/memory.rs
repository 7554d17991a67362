//! Making the C allocator give memory back to the kernel.
//!
//! Allocators are made for programs that soon need again what they freed. A server that was busy and now holds many idle
//! connections does not: what is left of its burst would be most of what a connection costs.

/// Processors that share an arena.
#[cfg(target_env = "gnu")]
const PROCESSORS_PER_ARENA: usize = 4;

/// Has few arenas share what is free. The allocator makes up to eight for each processor, and each keeps some megabytes
/// for good after a burst, because the memory at its end is returned only when the thread that uses it frees the very last
/// of it; the main arena's end is returned on demand. To be called before there are threads.
pub fn keep_together() {
    #[cfg(target_env = "gnu")]
    {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let arenas = processors.div_ceil(PROCESSORS_PER_ARENA).try_into().unwrap_or(libc::c_int::MAX);
        // SAFETY: M_ARENA_MAX only bounds how many arenas are made from now on.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, arenas);
        }
    }
}

/// Resident memory of this process in bytes; `None` where the kernel does not tell.
pub(crate) fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Returns the allocator's free memory, pages in the middle of its heaps included.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks and touches nothing but free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}
