//! Connections served by one task: all that share an epoll set of ours, or all streams of one HTTP/2 connection.
//!
//! An idle connection has no task, no engine and no registration with the runtime: it is its carrier in a slot, 24 bytes,
//! and over TCP a place in the epoll set. A [`Session`] exists while there is something to do, and the task polls only
//! those of which it heard: from the epoll set, from a waker, by an order.

use std::collections::VecDeque;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use fastrand::Rng;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::carrier::Carrier;
use super::client::{OpenError, Opened};
use super::http2::{Http2, Opening};
use super::mailbox::{Mailbox, Order, Task};
use super::run::{Run, count};
use super::session::{Session, Step};
use crate::deflate::Agreed;

/// Events collected at once, and how often before other tasks get their turn.
const EVENTS: usize = 256;
const ROUNDS: u32 = 16;

/// Which connections of which a share is chosen, for each purpose.
const SLOW: u64 = 1;

pub(super) enum Slot {
    Vacant,
    /// An HTTP/2 stream that has not been answered.
    Opening(Box<Opening>),
    Idle(Carrier),
    Active(Box<Session>),
}

/// What an idle connection costs; growth should be deliberate.
const _: () = assert!(size_of::<Slot>() <= 24);

pub(super) struct Bundle {
    pub(super) run: Arc<Run>,
    mailbox: Arc<Mailbox>,
    index: u32,
    pub(super) slots: Vec<Slot>,
    /// Sockets; an HTTP/2 connection has none but its own, which is the runtime's.
    watch: Option<AsyncFd<OwnedFd>>,
    http2: Option<Box<Http2>>,
    /// Slots to be polled again.
    again: VecDeque<u32>,
    rng: Rng,
}

impl Bundle {
    /// For sockets. Within a runtime.
    ///
    /// # Errors
    /// Those of epoll_create(2).
    pub(super) fn of_sockets(run: &Arc<Run>, mailbox: Arc<Mailbox>, index: u32) -> io::Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        // SAFETY: an owned descriptor is open, and the same, for as long as it lives, and it lives in the result.
        let watch = unsafe { AsyncFd::register_with_interest(set, Interest::READABLE) };
        Ok(Self { watch: Some(watch?), ..Self::of_streams(run, mailbox, index, None) })
    }

    /// For the streams of a connection.
    pub(super) fn of_streams(
        run: &Arc<Run>,
        mailbox: Arc<Mailbox>,
        index: u32,
        http2: Option<Box<Http2>>,
    ) -> Self {
        let rng = Rng::with_seed(run.options.seed ^ u64::from(index));
        let (run, slots, again) = (run.clone(), Vec::new(), VecDeque::new());
        Self { run, mailbox, index, slots, watch: None, http2, again, rng }
    }

    pub(super) fn rank(&self, slot: u32) -> u32 {
        self.run.shape.rank(self.index, slot)
    }

    pub(super) fn put(&mut self, slot: u32, content: Slot) {
        let at = slot as usize;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || Slot::Vacant);
        }
        self.slots[at] = content;
    }

    fn take(&mut self, slot: u32) -> Slot {
        self.slots.get_mut(slot as usize).map_or(Slot::Vacant, |slot| mem::replace(slot, Slot::Vacant))
    }

    pub(super) fn waker(&self, slot: u32) -> Waker {
        self.mailbox.waker(slot)
    }

    pub(super) fn http2_mut(&mut self) -> Option<&mut Http2> {
        self.http2.as_deref_mut()
    }

    /// Has `slot` looked after in the next turn.
    pub(super) fn look_at(&mut self, slot: u32) {
        self.again.push_back(slot);
    }

    pub(super) fn look_at_all(&mut self) {
        self.again.extend(0..self.slots.len() as u32);
    }

    fn obey(&mut self, Order { slot, task }: Order) {
        match task {
            Task::Join(opened) => {
                let Opened { carrier, tail, agreed, .. } = *opened;
                self.join(slot, carrier, tail, agreed);
            }
            Task::Sever => self.sever(),
            Task::Abort | Task::Recycle { abort: true } => {
                self.abort(slot, matches!(task, Task::Recycle { .. }))
            }
            Task::Send(due) => match self.session(slot) {
                Some(session) => session.send(due),
                None => return self.run.count_error("messages_not_sent"),
            },
            Task::Ping(due) => self.tell(slot, |session| session.ping(due)),
            Task::Close => self.tell(slot, Session::close),
            Task::Recycle { abort: false } => match self.session(slot).filter(|session| !session.recycle) {
                Some(session) => {
                    session.recycle = true;
                    session.close();
                }
                None => count(&self.run.not_recycled),
            },
        }
        self.again.push_back(slot);
    }

    fn tell(&mut self, slot: u32, what: impl FnOnce(&mut Session)) {
        if let Some(session) = self.session(slot) {
            what(session);
        }
    }

    /// The session in `slot`, made if the connection is idle.
    fn session(&mut self, slot: u32) -> Option<&mut Session> {
        let content = match self.take(slot) {
            Slot::Idle(carrier) => {
                Slot::Active(Box::new(Session::new(carrier, self.rank(slot), Vec::new(), None, &self.run)))
            }
            other => other,
        };
        self.put(slot, content);
        match &mut self.slots[slot as usize] {
            Slot::Active(session) => Some(session),
            Slot::Vacant | Slot::Opening(_) | Slot::Idle(_) => None,
        }
    }

    /// Begins serving an open connection.
    pub(super) fn join(&mut self, slot: u32, mut carrier: Carrier, tail: Vec<u8>, agreed: Option<Agreed>) {
        let rank = self.rank(slot);
        if let (Some(watch), Some(socket)) = (&self.watch, carrier.socket()) {
            let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            let data = EventData::new_u64(u64::from(slot));
            if let Err(error) = epoll::add(watch.get_ref(), &socket.socket, data, interest) {
                self.run.count_error(super::client::io_kind(&error.into()));
                return self.run.left(rank);
            }
        }
        let options = &self.run.options;
        if self.run.chosen(rank, options.slow_readers, SLOW) {
            carrier = carrier.slow(options.read_rate);
        }
        let polled = carrier.wakes() || !tail.is_empty() || agreed.is_some();
        let closing = self.run.closing();
        // A bare socket that was never looked at is as idle as one that was: the epoll set tells.
        if !polled && !closing {
            return self.put(slot, Slot::Idle(carrier));
        }
        let mut session = Session::new(carrier, rank, tail, agreed, &self.run);
        if closing {
            session.close();
        }
        self.put(slot, Slot::Active(Box::new(session)));
    }

    fn abort(&mut self, slot: u32, recycle: bool) {
        let carrier = match self.take(slot) {
            Slot::Idle(carrier) => carrier,
            Slot::Active(session) => session.into_carrier(),
            other => {
                if recycle {
                    count(&self.run.not_recycled);
                }
                return self.put(slot, other);
            }
        };
        carrier.abort();
        count(&self.run.fates.aborted);
        self.left(slot, recycle);
    }

    /// Ends everything at once.
    fn sever(&mut self) {
        let open = |slot: &Slot| matches!(slot, Slot::Idle(_) | Slot::Active(_));
        let aborted = self.slots.iter().filter(|slot| open(slot)).count();
        self.run.fates.aborted.fetch_add(aborted as u64, Ordering::Relaxed);
        for slot in 0..self.slots.len() as u32 {
            match self.take(slot) {
                Slot::Vacant => {}
                Slot::Opening(_) => self.run.not_opened(&OpenError::Severed),
                Slot::Idle(_) | Slot::Active(_) => self.run.left(self.rank(slot)),
            }
        }
        let waiting = self.http2.as_mut().map_or(0, |http2| http2.sever());
        (0..waiting).for_each(|_| self.run.not_opened(&OpenError::Severed));
    }

    /// The connection in `slot` has ended.
    fn left(&mut self, slot: u32, recycle: bool) {
        let rank = self.rank(slot);
        self.run.left(rank);
        if recycle && !self.run.closing() {
            count(&self.run.fates.recycled);
            self.run.request(1);
            match &mut self.http2 {
                Some(http2) => http2.open_again(slot),
                None => super::opening::again(&self.run, rank),
            }
        }
    }

    /// Looks after one slot. `ready` is what the epoll set said of its socket.
    fn advance(&mut self, slot: u32, ready: EventFlags) {
        let mut session = match self.take(slot) {
            Slot::Vacant => return,
            Slot::Opening(opening) => return self.answered(slot, opening),
            Slot::Idle(mut carrier) => {
                note(&mut carrier, ready);
                if carrier.socket().is_some_and(|socket| !socket.readable) {
                    return self.put(slot, Slot::Idle(carrier));
                }
                Box::new(Session::new(carrier, self.rank(slot), Vec::new(), None, &self.run))
            }
            Slot::Active(mut session) => {
                note(session.carrier_mut(), ready);
                session
            }
        };
        let waker = if session.carrier_mut().wakes() { self.waker(slot) } else { Waker::noop().clone() };
        match session.advance(&mut Context::from_waker(&waker), &mut self.rng) {
            Step::Wait => self.put(slot, Slot::Active(session)),
            Step::Again => {
                self.again.push_back(slot);
                self.put(slot, Slot::Active(session));
            }
            Step::Idle => self.put(slot, Slot::Idle(session.into_carrier())),
            Step::Ended => {
                let recycle = session.recycle;
                session.into_carrier().finish();
                self.left(slot, recycle);
            }
        }
    }

    /// What the epoll set has to tell. Whether there may be more.
    fn collect(&mut self, watch: &AsyncFd<OwnedFd>) -> bool {
        let mut events = [const { MaybeUninit::uninit() }; EVENTS];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(watch.get_ref(), &mut events, Some(&at_once)) {
            Ok((events, _)) => {
                events.iter().for_each(|event| self.advance(event.data.u64() as u32, event.flags));
                !events.is_empty()
            }
            // A signal came: the next round gets the same events.
            Err(Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// Whether other tasks should get their turn now, with more to do here.
    fn watch(&mut self, watch: &AsyncFd<OwnedFd>, cx: &mut Context<'_>) -> bool {
        let mut rounds = 0;
        // An error here is the runtime's end.
        while let Poll::Ready(Ok(mut guard)) = watch.poll_read_ready(cx) {
            while self.collect(watch) {
                rounds += 1;
                if rounds >= ROUNDS {
                    return true;
                }
            }
            guard.clear_ready();
        }
        false
    }
}

impl Future for Bundle {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let bundle = &mut *self;
        let waiting = bundle.mailbox.take(cx);
        waiting.orders.into_iter().for_each(|order| bundle.obey(order));
        bundle.again.extend(waiting.ready);
        // Those that come back meanwhile have their turn next time.
        for _ in 0..bundle.again.len() {
            if let Some(slot) = bundle.again.pop_front() {
                bundle.advance(slot, EventFlags::empty());
            }
        }
        let mut more = !bundle.again.is_empty();
        if let Some(watch) = bundle.watch.take() {
            more |= bundle.watch(&watch, cx);
            bundle.watch = Some(watch);
        }
        if let Some(mut http2) = bundle.http2.take() {
            let outcome = bundle.drive(&mut http2, cx);
            bundle.http2 = Some(http2);
            if outcome.is_ready() {
                return Poll::Ready(());
            }
        }
        if more || !bundle.again.is_empty() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// Takes down what a socket is ready for.
fn note(carrier: &mut Carrier, ready: EventFlags) {
    let Some(socket) = carrier.socket_mut() else { return };
    let ended = EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR;
    socket.ended |= ready.intersects(ended);
    socket.readable |= ready.intersects(ended | EventFlags::IN);
    socket.writable |= ready.intersects(ended | EventFlags::OUT);
}
