//! Between the socket and h2: what comes in, in pieces that keep h2's memory small.
//!
//! h2 reads as long as there is anything to read, keeps each DATA frame in a list until it is asked for, and reads a frame into
//! one buffer. Neither the list nor the buffer ever shrinks, so what a peer does once at its worst a connection would pay for
//! until its end. Therefore a long DATA frame is handed on as several, which means the same (RFC 9113 section 6.1), and after
//! each buffer's worth h2 is told that there is nothing more for the moment, so that what it has is dealt with. For the same
//! reason it gets a few frames only until the connection's task has taken all requests among them: a client may ask for
//! all its streams in one segment, and the list that they wait in is as long as it ever had to be, for good.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What h2 reads into if no frame is longer, in bytes.
const BUFFER: usize = 8192;
/// Frames handed on before all requests among them have been taken.
pub(super) const FRAMES: u32 = 16;
/// Size of a frame's header.
const HEADER: usize = 9;
/// Longest payload of a DATA frame that is handed on: what is left of the buffer behind another is not enough for a longer one.
const PIECE: u32 = (BUFFER / 2 - HEADER) as u32;
/// What a client says before its first frame.
const PREFACE: u32 = 24;

const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// Holds an inlet back until the connection's task has taken all requests there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Valve {
    closed: Arc<AtomicBool>,
}

impl Valve {
    /// To be called when there is no request left. Whether the inlet was held back, and so may have more.
    pub(super) fn open(&self) -> bool {
        self.closed.swap(false, Ordering::Relaxed)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// The client's side of a connection's byte stream.
pub(super) struct Inlet<S> {
    io: S,
    /// To be handed on before anything else is read.
    queued: Vec<u8>,
    /// The header that is being read, and how much of it is there. None of it has been handed on.
    header: [u8; HEADER],
    have: usize,
    /// Bytes of a header that are queued, to be handed on as they are.
    decided: usize,
    /// Payload of the current frame still to be handed on.
    left: u32,
    /// The header of the next piece of the same frame.
    next: Option<[u8; HEADER]>,
    /// Handed on since h2 was last told that there is nothing.
    passed: usize,
    /// Frames begun since the valve was opened last.
    frames: u32,
    valve: Valve,
}

impl<S> Inlet<S> {
    /// `received` has been read from `io` already. Who polls the connection must open `valve` when no request is left.
    pub(super) fn new(io: S, received: Vec<u8>, valve: Valve) -> Self {
        Self {
            io,
            frames: 0,
            valve,
            queued: received,
            header: [0; HEADER],
            have: 0,
            decided: 0,
            left: PREFACE,
            next: None,
            passed: 0,
        }
    }

    /// Goes over what has been put into `buffer` behind `start`.
    fn pass(&mut self, buffer: &mut ReadBuf<'_>, start: usize) {
        let bytes = &mut buffer.filled_mut()[start..];
        // Where the current header began, if it is all in here.
        let (mut at, mut begin) = (0, None);
        let keep = loop {
            let step = self.decided.min(bytes.len() - at);
            self.decided -= step;
            at += step;
            let step = (bytes.len() - at).min(self.left as usize);
            self.left -= step as u32;
            at += step;
            if at == bytes.len() {
                break at;
            }
            if let Some(header) = self.next.take() {
                self.requeue(header, &bytes[at..]);
                break at;
            }
            if self.have == 0 {
                if self.frames == FRAMES {
                    self.queued = [&bytes[at..], &self.queued].concat();
                    break at;
                }
                self.frames += 1;
                begin = Some(at);
            }
            let step = (bytes.len() - at).min(HEADER - self.have);
            self.header[self.have..self.have + step].copy_from_slice(&bytes[at..at + step]);
            self.have += step;
            if self.have < HEADER {
                // Its beginning must not be handed on before its end is known.
                break begin.unwrap_or(0);
            }
            self.have = 0;
            let header = self.header;
            let Some(begin) = begin.take() else {
                self.requeue(header, &bytes[at + step..]);
                break 0;
            };
            at += step;
            bytes[begin..at].copy_from_slice(&self.divide(header));
        };
        buffer.set_filled(start + keep);
    }

    /// The header of the first piece of a frame; the other pieces are noted.
    fn divide(&mut self, header: [u8; HEADER]) -> [u8; HEADER] {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        self.left = length;
        if header[3] != DATA || header[4] & PADDED != 0 || length <= PIECE {
            return header;
        }
        let with_length = |mut header: [u8; HEADER], length: u32| {
            header[..3].copy_from_slice(&length.to_be_bytes()[1..]);
            header
        };
        self.left = PIECE;
        self.next = Some(with_length(header, length - PIECE));
        let mut first = with_length(header, PIECE);
        first[4] &= !END_STREAM;
        first
    }

    /// Hands on `header`, or that of its first piece, and `bytes` before what else is queued.
    fn requeue(&mut self, header: [u8; HEADER], bytes: &[u8]) {
        let header = self.divide(header);
        self.decided = HEADER;
        self.queued = [&header, bytes, &self.queued].concat();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Inlet<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.frames == FRAMES {
            self.frames = 0;
            self.valve.close();
        }
        if self.valve.is_closed() {
            // Whoever opens it polls again.
            return Poll::Pending;
        }
        if self.passed >= BUFFER {
            self.passed = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let start = buffer.filled().len();
        loop {
            if self.queued.is_empty() {
                let outcome = Pin::new(&mut self.io).poll_read(cx, buffer);
                if outcome.is_pending() {
                    (self.passed, self.frames) = (0, 0);
                }
                ready!(outcome)?;
            } else {
                let count = self.queued.len().min(buffer.remaining());
                buffer.put_slice(&self.queued[..count]);
                self.queued = self.queued.split_off(count);
            }
            if buffer.filled().len() == start {
                return Poll::Ready(Ok(()));
            }
            self.pass(buffer, start);
            let passed = buffer.filled().len() - start;
            if passed > 0 {
                self.passed += passed;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inlet<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, length: usize) -> Vec<u8> {
        let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, stream]);
        bytes.extend((0..length).map(|at| (at % 251) as u8 ^ stream));
        bytes
    }

    /// The frames in `bytes`: kind, flags, stream, payload.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u8, Vec<u8>)> {
        let mut found = Vec::new();
        while let [a, b, c, kind, flags, _, _, _, stream, rest @ ..] = bytes {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            found.push((*kind, *flags, *stream, rest[..length].to_vec()));
            bytes = &rest[length..];
        }
        assert!(bytes.is_empty());
        found
    }

    #[test]
    fn long_data_becomes_several_frames_that_mean_the_same_wherever_it_is_cut() {
        let mut input = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let sent: [(u8, u8, u8, usize); 9] = [
            (4, 0, 0, 18),
            (DATA, 0, 1, 0),
            (DATA, 0, 3, 4_087),
            (DATA, END_STREAM, 1, 4_088),
            (1, 4, 5, 9_000),
            (DATA, PADDED, 5, 9_000),
            (DATA, 0, 7, 9_000),
            (DATA, END_STREAM, 5, 2 * 4_087),
            (6, 0, 0, 8),
        ];
        sent.iter()
            .for_each(|(kind, flags, stream, length)| input.extend(frame(*kind, *flags, *stream, *length)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (chunk, buffer) in
            [(1, 8192), (5, 7), (9, 9), (100, 13), (4_000, 8_192), (70_000, 1), (70_000, 8_192)]
        {
            let output = runtime.block_on(async {
                let (client, server) = tokio::io::duplex(chunk);
                let (begun, rest) = input.split_at(14);
                let rest = rest.to_vec();
                let writing = tokio::spawn(async move {
                    let mut client = client;
                    for part in rest.chunks(chunk) {
                        client.write_all(part).await.unwrap();
                    }
                });
                let mut inlet = Inlet::new(server, begun.to_vec(), Valve::default());
                let (mut output, mut scratch) = (Vec::new(), vec![0; buffer]);
                loop {
                    match inlet.read(&mut scratch).await.unwrap() {
                        0 => break,
                        count => output.extend(&scratch[..count]),
                    }
                }
                writing.await.unwrap();
                output
            });
            assert_eq!(output[..24], input[..24]);
            let mut whole: Vec<(u8, u8, u8, Vec<u8>)> = Vec::new();
            let pieces = frames(&output[24..]);
            assert_eq!(pieces.len(), sent.len() + 1 + 2 + 1, "{chunk} {buffer}");
            for (kind, flags, stream, payload) in pieces {
                assert!(kind != DATA || flags & PADDED != 0 || payload.len() <= PIECE as usize);
                match whole.last_mut() {
                    Some(last)
                        if kind == DATA
                            && last.3.len() % PIECE as usize == 0
                            && last.0 == DATA
                            && last.2 == stream =>
                    {
                        last.3.extend(payload);
                        last.1 = flags;
                    }
                    _ => whole.push((kind, flags, stream, payload)),
                }
            }
            assert_eq!(whole, frames(&input[24..]), "{chunk} {buffer}");
        }
    }

    #[test]
    fn many_requests_at_once_are_handed_on_as_they_are_taken() {
        let mut input = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        (0..40).for_each(|number| input.extend(frame(1, 4, number, 12)));
        for buffer in [5, 100, 8_192] {
            let valve = Valve::default();
            let mut inlet = Inlet::new(tokio::io::empty(), input.clone(), valve.clone());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut output: Vec<u8> = Vec::new();
            let mut turns = vec![0];
            loop {
                let mut scratch = vec![0; buffer];
                let mut scratch = ReadBuf::new(&mut scratch);
                match Pin::new(&mut inlet).poll_read(&mut cx, &mut scratch) {
                    Poll::Pending => {
                        assert!(Pin::new(&mut inlet).poll_read(&mut cx, &mut scratch).is_pending());
                        assert!(valve.open() && !valve.open());
                        turns.push(output.len());
                    }
                    Poll::Ready(outcome) => {
                        outcome.unwrap();
                        if scratch.filled().is_empty() {
                            break;
                        }
                        output.extend(scratch.filled());
                    }
                }
            }
            assert_eq!(output, input);
            let size = HEADER + 12;
            // A header that came in parts is withheld until it is whole, so the frame may fall into the next turn.
            let frames: Vec<usize> = turns[1..].iter().map(|at| (at - 24) / size).collect();
            assert!(frames == [16, 32] || buffer < size && frames == [15, 31], "{buffer}: {frames:?}");
        }
    }
}
