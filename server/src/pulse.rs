//! How the rest of the process gets a connection's attention without a channel or a timer for each.

use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Context;

use futures_util::task::AtomicWaker;

/// A few signal bits and the waker of the one task that looks at them.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    bits: AtomicU32,
    waker: AtomicWaker,
}

impl Pulse {
    /// Sets `bits` and wakes the task.
    pub(crate) fn raise(&self, bits: u32) {
        self.bits.fetch_or(bits, Ordering::Release);
        self.waker.wake();
    }

    /// The bits raised since the last call, cleared. Later ones wake the task of `cx`.
    pub(crate) fn take(&self, cx: &Context<'_>) -> u32 {
        // Registering first: bits raised in between are seen now or wake the task, never neither.
        self.waker.register(cx.waker());
        self.bits.swap(0, Ordering::Acquire)
    }

    /// The bits raised and not yet taken.
    pub(crate) fn pending(&self) -> u32 {
        self.bits.load(Ordering::Acquire)
    }

    /// Lets go of the task, whose memory lives as long as its last waker.
    pub(crate) fn forget(&self) {
        self.waker.take();
    }
}
