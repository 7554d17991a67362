//! From the peer to the engine: compressed messages become plain frames.
//!
//! A compressed message (RSV1 on its first frame) is inflated a piece at a time, each piece a fragment of the message for
//! the engine, so what is held does not depend on how large the message is or says it is; the engine's own limit on
//! a message ends the connection when it has grown too large. Everything else passes as it is, control frames between
//! fragments in their place. What is illegal passes too: that is the engine's to judge.

use std::io;

use super::codec::{Inflater, Progress, TAIL};
use super::frame::{BINARY, CONTINUATION, FIN, Header, MAX_HEADER, RSV1, TEXT, apply_mask, write_before};
use super::{Direction, Failure, pool};

/// Read from the stream at once.
const READ: usize = 4096;
/// A piece with its header fits the engine's read buffer.
const PIECE: usize = 4096 - 8;

/// One direction of a connection.
pub(super) struct Inbound {
    direction: Direction,
    /// Whether the peer's frames must be masked, and so must those for the engine.
    masked: bool,
    /// What was read, allocated while needed, and which part of it has still to be looked at.
    raw: Vec<u8>,
    start: usize,
    end: usize,
    /// Room for a header and a piece, allocated while needed, and which part of it the engine has still to get.
    out: Vec<u8>,
    out_start: usize,
    out_end: usize,
    at: At,
    message: Message,
    /// While a message needs it; with takeover from the first message on.
    inflater: Option<Inflater>,
    /// What the next inflater starts with.
    history: Box<[u8]>,
}

/// Where in the stream it stands.
#[derive(Debug, Clone, Copy)]
enum At {
    Header,
    /// In a frame that passes as it is, header included.
    Through {
        left: u64,
    },
    /// In the payload of a compressed frame.
    Payload {
        left: u64,
        mask: [u8; 4],
        offset: u64,
        last: bool,
    },
    /// Behind a compressed message, of whose tail `done` bytes are inflated.
    Tail {
        done: usize,
    },
    /// The data was corrupt.
    Failed(Failure),
}

/// The fragmented or compressed message under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    None,
    Plain,
    /// `opcode` is what the next piece carries; `pieced` bytes of it wait in the buffer.
    Compressed {
        opcode: u8,
        pieced: usize,
    },
}

impl Inbound {
    pub(super) fn new(direction: Direction, masked: bool, history: Box<[u8]>) -> Self {
        Self {
            direction,
            masked,
            raw: Vec::new(),
            start: 0,
            end: 0,
            out: Vec::new(),
            out_start: 0,
            out_end: 0,
            at: At::Header,
            message: Message::None,
            inflater: None,
            history,
        }
    }

    /// Takes over what was read already.
    pub(super) fn feed(&mut self, bytes: Vec<u8>) {
        (self.start, self.end) = (0, bytes.len());
        self.raw = bytes;
    }

    /// Whether there is something for the engine without reading the stream.
    pub(super) fn has_input(&self) -> bool {
        self.start < self.end || self.out_start < self.out_end
    }

    /// Reads frames for the engine; `read` reads the stream.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            if self.out_start < self.out_end {
                let count = buffer.len().min(self.out_end - self.out_start);
                buffer[..count].copy_from_slice(&self.out[self.out_start..self.out_start + count]);
                self.out_start += count;
                return Ok(count);
            }
            match self.at {
                At::Header => match Header::parse(&self.raw[self.start..self.end]) {
                    Some(header) => self.begin_frame(header)?,
                    None => {
                        if self.fill(&mut read)? == 0 {
                            return Ok(0);
                        }
                    }
                },
                At::Through { left } => {
                    let count = self.pass(left, buffer, &mut read)?;
                    let left = left - count as u64;
                    self.at = if left == 0 { At::Header } else { At::Through { left } };
                    return Ok(count);
                }
                At::Payload { left: 0, last, .. } => {
                    self.at = if last { At::Tail { done: 0 } } else { At::Header };
                }
                At::Payload { left, mask, offset, last } => {
                    if self.start == self.end && self.fill(&mut read)? == 0 {
                        return Ok(0);
                    }
                    self.inflate(left, mask, offset, last)?;
                }
                At::Tail { done } => self.finish(done)?,
                At::Failed(failure) => return Err(failure.into()),
            }
        }
    }

    /// Frees the buffers. To be called where nothing is half way.
    pub(super) fn rest(&mut self) {
        if !self.has_input() {
            (self.raw, self.out) = (Vec::new(), Vec::new());
            (self.start, self.end, self.out_start, self.out_end) = (0, 0, 0, 0);
        }
    }

    /// What a successor must know of the messages so far.
    pub(super) fn into_history(mut self) -> Box<[u8]> {
        match &mut self.inflater {
            Some(inflater) if self.direction.takeover => inflater.history().into(),
            _ => self.history,
        }
    }

    /// Reads on behind what there is.
    fn fill(&mut self, read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.raw.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.raw.len() < READ {
            self.raw.resize(READ, 0);
        }
        let count = read(&mut self.raw[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// Hands some of a frame on as it is.
    fn pass(
        &mut self,
        left: u64,
        buffer: &mut [u8],
        read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = &mut buffer[..count];
        let ready = count.min(self.end - self.start);
        if ready == 0 {
            return read(buffer);
        }
        buffer[..ready].copy_from_slice(&self.raw[self.start..self.start + ready]);
        self.start += ready;
        Ok(ready)
    }

    /// Decides what becomes of the frame whose header comes next.
    fn begin_frame(&mut self, header: Header) -> Result<(), Failure> {
        let opcode = header.opcode();
        let proper = header.mask.is_some() == self.masked;
        let compressed = match self.message {
            Message::None => proper && header.reserved() == RSV1 && matches!(opcode, TEXT | BINARY),
            Message::Compressed { .. } => proper && header.reserved() == 0 && opcode == CONTINUATION,
            Message::Plain => false,
        };
        if !compressed {
            match self.message {
                _ if header.is_control() => {}
                // The engine must know that a message is under way to see what is wrong with the frame.
                Message::Compressed { .. } => self.emit(false),
                Message::None | Message::Plain if header.reserved() == 0 => {
                    self.message = if header.is_final() { Message::None } else { Message::Plain };
                }
                Message::None | Message::Plain => {}
            }
            self.at = At::Through { left: header.whole() };
            return Ok(());
        }
        if self.message == Message::None {
            self.begin_message(opcode)?;
        }
        self.start += header.size;
        self.at = At::Payload {
            left: header.payload,
            mask: header.mask.unwrap_or_default(),
            offset: 0,
            last: header.is_final(),
        };
        Ok(())
    }

    fn begin_message(&mut self, opcode: u8) -> Result<(), Failure> {
        self.message = Message::Compressed { opcode, pieced: 0 };
        match &mut self.inflater {
            Some(inflater) => inflater.begin(),
            None if self.direction.takeover => {
                let history = std::mem::take(&mut self.history);
                self.inflater = Some(Inflater::resumed(self.direction.bits, &history)?);
            }
            None => self.inflater = Some(pool::inflater()?),
        }
        Ok(())
    }

    /// Inflates some of what was read.
    fn inflate(&mut self, left: u64, mask: [u8; 4], offset: u64, last: bool) -> Result<(), Failure> {
        let have = self.end - self.start;
        let count = usize::try_from(left).map_or(have, |left| left.min(have));
        let input = &mut self.raw[self.start..self.start + count];
        apply_mask(input, mask, offset);
        let outcome = step(&mut self.inflater, &mut self.out, &mut self.message, input, Inflater::push);
        let (used, full) = outcome.inspect_err(|failure| self.at = At::Failed(*failure))?;
        // What did not fit is unmasked again when its turn comes.
        apply_mask(&mut input[used..], mask, offset + used as u64);
        self.start += used;
        let (left, offset) = (left - used as u64, offset + used as u64);
        self.at = At::Payload { left, mask, offset, last };
        if full {
            self.emit(false);
        }
        Ok(())
    }

    /// Inflates the rest of a message whose frames have all been read.
    fn finish(&mut self, done: usize) -> Result<(), Failure> {
        let tail = &TAIL[done..];
        let outcome = step(&mut self.inflater, &mut self.out, &mut self.message, tail, Inflater::finish);
        let (used, full) = outcome.inspect_err(|failure| self.at = At::Failed(*failure))?;
        self.at = At::Tail { done: done + used };
        self.emit(!full);
        if !full {
            self.at = At::Header;
            self.message = Message::None;
            if !self.direction.takeover {
                self.inflater.take().into_iter().for_each(pool::give_inflater);
            }
        }
        Ok(())
    }

    /// Makes a frame of the piece.
    fn emit(&mut self, last: bool) {
        let Message::Compressed { opcode, pieced } = &mut self.message else { return };
        make_room(&mut self.out);
        // The engine of a server wants a mask; this one changes nothing.
        let mask = self.masked.then_some([0; 4]);
        let first = if last { FIN | *opcode } else { *opcode };
        self.out_start = write_before(&mut self.out, first, mask, *pieced);
        self.out_end = MAX_HEADER + *pieced;
        (*opcode, *pieced) = (CONTINUATION, 0);
    }
}

/// Inflates behind the piece that there is: how much input that took, and whether the piece is full.
fn step(
    inflater: &mut Option<Inflater>,
    out: &mut Vec<u8>,
    message: &mut Message,
    input: &[u8],
    how: impl FnOnce(&mut Inflater, &[u8], &mut [u8]) -> Result<Progress, Failure>,
) -> Result<(usize, bool), Failure> {
    let (Some(inflater), Message::Compressed { pieced, .. }) = (inflater, message) else {
        return Err(Failure::Corrupt);
    };
    make_room(out);
    let progress = how(inflater, input, &mut out[MAX_HEADER + *pieced..])?;
    *pieced += progress.made;
    Ok((progress.used, *pieced == PIECE))
}

fn make_room(out: &mut Vec<u8>) {
    if out.is_empty() {
        out.resize(MAX_HEADER + PIECE, 0);
    }
}
