//! A peer whose frames come to nothing gets its turn like others, and no more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use server::deflate::{Adapter, Agreed, Direction, Kept, Settings};
use server::link::{Link, Transport};
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::raw::{CONTINUATION, RSV1, TEXT, frame};

/// Has always something to read: `first`, and then `more` without end.
struct Endless {
    first: Vec<u8>,
    more: Vec<u8>,
    read: usize,
}

impl Transport for Endless {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in &mut *buffer {
            let at = self.read.checked_sub(self.first.len());
            *byte = at.map_or_else(|| self.first[self.read], |at| self.more[at % self.more.len()]);
            self.read += 1;
        }
        Ok(buffer.len())
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn poll_read_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_write_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn gets_turns(first: Vec<u8>, more: Vec<u8>, deflate: Option<Adapter>) {
    let endless = Endless { first, more, read: 0 };
    let mut link = Link::compressed(endless, Role::Server, 1 << 20, Vec::new(), (), deflate);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    for turn in 1..=4 {
        assert!(link.poll_read(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), turn, "it is not to wait for anything");
        let read = link.transport().read;
        assert!((turn * (200 << 10)..=turn * (264 << 10)).contains(&read), "{read} bytes in {turn} turns");
        // Nothing is at rest in the middle of a message.
        link.park();
        assert!(!link.is_bare());
    }
}

#[test]
fn fragments_without_anything_in_them() {
    gets_turns(frame(TEXT, b""), frame(CONTINUATION, b""), None);
}

#[test]
fn compressed_blocks_that_come_to_nothing() {
    let direction = Direction { bits: 15, takeover: false };
    let agreed = Agreed::new(direction, direction);
    let adapter = Adapter::new(Role::Server, Kept::from(agreed), &Settings::default());
    // Stored blocks of no length, in one frame that says it goes on for ever.
    let mut head = vec![RSV1 | TEXT, 0x80 | 127];
    head.extend((1_u64 << 62).to_be_bytes());
    head.extend([0; 4]);
    gets_turns(head, vec![0x00, 0x00, 0x00, 0xFF, 0xFF], Some(adapter));
}
