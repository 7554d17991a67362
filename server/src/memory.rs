//! Giving memory back to the kernel.

/// Returns the free memory of the C allocator, pages in the middle of its heaps included. The allocator alone returns
/// only what is free at a heap's end, and the last connection that happens to be active sits there.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks and touches nothing but free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}
