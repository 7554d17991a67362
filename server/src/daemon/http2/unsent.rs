//! Frames that wait for the connection's socket, by number.
//!
//! What h2 keeps for a stream is bounded in bytes, [`super::SEND_BUFFER`], but a frame costs it some 250 more whatever is in it.
//! A peer that gives windows and does not read could have tens of thousands of tiny ones wait on every stream: answers to its own
//! pings, or messages of a room. So their number is bounded too, for the whole connection, because all wait for the same socket.
//! At the bound a stream is like one without a window: its session waits, reads nothing more, and falls behind in its room.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio_tungstenite::tungstenite::Bytes;

/// Frames beyond which no stream writes; some 300 KB with what h2 has of each.
const MOST: usize = 1_024;

/// How many frames of a connection h2 has that the socket has not taken, and who waits for them to be fewer.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    frames: AtomicUsize,
    /// By the places of their streams, so that one that asks again is there once.
    waiting: Mutex<BTreeMap<u32, Waker>>,
}

impl Unsent {
    /// Whether a stream may write.
    pub(super) fn has_room(&self) -> bool {
        self.frames.load(Ordering::Relaxed) < MOST
    }

    /// The same; if not, `waker` is woken when that is worth another try.
    pub(super) fn has_room_or_wakes(&self, place: u32, waker: &Waker) -> bool {
        if self.has_room() {
            return true;
        }
        let former = self.waiting().insert(place, waker.clone());
        // Not under the lock: nobody knows what the end of a waker is.
        drop(former);
        // The connection's task may have looked in between.
        self.has_room()
    }

    /// Wakes those who wait, if half of the room is free. To be called when the socket may have taken something, outside of
    /// h2's locks.
    pub(super) fn wake(&self) {
        if self.frames.load(Ordering::Relaxed) < MOST / 2 {
            mem::take(&mut *self.waiting()).into_values().for_each(Waker::wake);
        }
    }

    /// `bytes` to be sent, counted until h2 lets go of them.
    pub(super) fn frame(self: &Arc<Self>, bytes: Vec<u8>) -> Bytes {
        self.frames.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Frame { bytes, unsent: self.clone() })
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u32, Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What h2 sends as one frame, or as several if it is long.
struct Frame {
    bytes: Vec<u8>,
    unsent: Arc<Unsent>,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.unsent.frames.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn streams_wait_at_the_bound_until_half_of_the_room_is_free() {
        let unsent = Arc::new(Unsent::default());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut frames: Vec<Bytes> = (0..MOST).map(|_| unsent.frame(vec![b'x'])).collect();
        // Asked again and again, each is woken once.
        for _ in 0..10 {
            assert!((0..3).all(|place| !unsent.has_room_or_wakes(place, &waker)));
        }
        while frames.len() > MOST / 2 {
            unsent.wake();
            assert_eq!(woken.0.load(Ordering::Relaxed), 0, "{} frames", frames.len());
            frames.pop();
            assert!(unsent.has_room());
        }
        frames.pop();
        unsent.wake();
        unsent.wake();
        assert_eq!(woken.0.load(Ordering::Relaxed), 3);
        assert!(unsent.has_room_or_wakes(0, &waker) && unsent.waiting().is_empty());
    }

    #[test]
    fn a_frame_counts_until_it_is_dropped_however_much_of_it_was_sent() {
        let unsent = Arc::new(Unsent::default());
        let mut frame = unsent.frame(b"abc".to_vec());
        let part = frame.split_to(2);
        assert_eq!((&part[..], &frame[..]), (&b"ab"[..], &b"c"[..]));
        drop(part);
        assert_eq!(unsent.frames.load(Ordering::Relaxed), 1);
        drop(frame);
        assert_eq!(unsent.frames.load(Ordering::Relaxed), 0);
    }
}
