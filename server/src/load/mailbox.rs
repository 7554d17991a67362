//! How the rest of the process reaches a [`super::bundle::Bundle`]: orders, and slots whose waker fired.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;

use super::client::Opened;

/// What a connection is to do.
pub(super) enum Task {
    /// Begin: it has been opened.
    Join(Box<Opened>),
    /// Send the message that was due at this time.
    Send(u64),
    /// Send a ping that was due at this time.
    Ping(u64),
    /// Close, in good order.
    Close,
    /// Be gone without a word.
    Abort,
    /// End, abruptly or in good order, and be opened again.
    Recycle {
        /// Whether abruptly.
        abort: bool,
    },
    /// Everything in the bundle goes without a word, and the bundle with it.
    Sever,
}

/// For the connection in `slot`.
pub(super) struct Order {
    pub(super) slot: u32,
    pub(super) task: Task,
}

#[derive(Default)]
pub(super) struct Mailbox {
    waiting: Mutex<Waiting>,
    waker: AtomicWaker,
}

#[derive(Default)]
pub(super) struct Waiting {
    pub(super) orders: Vec<Order>,
    /// Slots worth looking at. One may be named twice.
    pub(super) ready: Vec<u32>,
}

impl Mailbox {
    pub(super) fn order(&self, order: Order) {
        self.lock().orders.push(order);
        self.waker.wake();
    }

    fn ready(&self, slot: u32) {
        self.lock().ready.push(slot);
        self.waker.wake();
    }

    /// All that has come since the last call. Later things wake the task of `cx`.
    pub(super) fn take(&self, cx: &Context<'_>) -> Waiting {
        // Registering first: what comes in between is seen now or wakes the task, never neither.
        self.waker.register(cx.waker());
        std::mem::take(&mut *self.lock())
    }

    /// A waker for one slot.
    pub(super) fn waker(self: &Arc<Self>, slot: u32) -> Waker {
        Arc::new(SlotWaker { mailbox: self.clone(), slot }).into()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct SlotWaker {
    mailbox: Arc<Mailbox>,
    slot: u32,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mailbox.ready(self.slot);
    }
}
