//! From the engine to the peer: plain frames become compressed messages, where that is worth it.

use std::io;

use super::codec::{Deflater, Shape, TAIL};
use super::frame::{FIN, Header, MAX_HEADER, RSV1, TEXT, apply_mask, write_before};
use super::{Content, Direction, Failure, Settings, pool};

/// Unmasked at once on its way into the compressor.
const SCRATCH: usize = 4096;

/// One direction of a connection.
pub(super) struct Outbound {
    takeover: bool,
    shape: Shape,
    min_size: usize,
    content: Content,
    /// A compressed frame, and how much of it the stream has taken.
    pending: Vec<u8>,
    sent: usize,
    /// Bytes still to pass of a frame that is sent as it is.
    through: u64,
    message: Message,
    /// While a message needs it; with takeover from the first message on.
    deflater: Option<Deflater>,
}

/// The fragmented message under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    None,
    Plain,
    Compressed,
}

impl Outbound {
    pub(super) fn new(direction: Direction, settings: &Settings) -> Self {
        Self {
            takeover: direction.takeover,
            shape: Shape { bits: direction.bits, mem_level: settings.mem_level, level: settings.level },
            min_size: settings.min_size,
            content: settings.content,
            pending: Vec::new(),
            sent: 0,
            through: 0,
            message: Message::None,
            deflater: None,
        }
    }

    /// Takes frames from the engine, which must hand over whole ones: it does, and goes on where this stopped. `write`
    /// writes the stream.
    ///
    /// A compressed frame that the stream does not take at once is kept: [`Outbound::settle`] writes the rest. Nothing
    /// else is taken before that.
    pub(super) fn write(
        &mut self,
        bytes: &[u8],
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.settle(&mut write)?;
        if self.through == 0 {
            let header = Header::parse(bytes).ok_or(io::ErrorKind::InvalidInput)?;
            if let Some(message) = self.worth_it(&header) {
                let whole = usize::try_from(header.whole()).map_err(|_| io::ErrorKind::InvalidInput)?;
                let payload = bytes.get(header.size..whole).ok_or(io::ErrorKind::InvalidInput)?;
                if self.compress(&header, message, payload)? {
                    match self.settle(&mut write) {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                        _ => return Ok(whole),
                    }
                }
            }
            self.through = header.whole();
            if !header.is_control() && self.message != Message::Compressed {
                self.message = if header.is_final() { Message::None } else { Message::Plain };
            }
        }
        let count = usize::try_from(self.through).map_or(bytes.len(), |left| left.min(bytes.len()));
        let count = write(&bytes[..count])?;
        self.through -= count as u64;
        Ok(count)
    }

    /// Writes what is left of a compressed frame.
    pub(super) fn settle(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while let Some(left) = self.pending.get(self.sent..).filter(|left| !left.is_empty()) {
            match write(left)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => self.sent += count,
            }
        }
        self.pending.clear();
        self.sent = 0;
        Ok(())
    }

    /// Frees the buffer. To be called where nothing is half way.
    pub(super) fn rest(&mut self) {
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
    }

    /// Whether this is a frame to compress, and what is under way before it.
    fn worth_it(&self, header: &Header) -> Option<Message> {
        if header.is_control() || header.reserved() != 0 {
            return None;
        }
        let worthy = match self.message {
            Message::Plain => false,
            Message::Compressed => true,
            // How large a message in fragments will be is not known yet.
            Message::None => {
                let large = !header.is_final() || header.payload >= self.min_size as u64;
                large && (self.content == Content::All || header.opcode() == TEXT)
            }
        };
        worthy.then_some(self.message)
    }

    /// Makes a compressed frame; `false` if it is no smaller and need not be sent.
    fn compress(&mut self, header: &Header, before: Message, payload: &[u8]) -> Result<bool, Failure> {
        let mut deflater = match self.deflater.take() {
            Some(deflater) => deflater,
            None if self.takeover => Deflater::new(self.shape)?,
            None => pool::deflater(self.shape)?,
        };
        self.pending.resize(MAX_HEADER, 0);
        match header.mask {
            None => deflater.push(payload, &mut self.pending)?,
            Some(mask) => {
                let mut scratch = [0; SCRATCH];
                for (index, masked) in payload.chunks(SCRATCH).enumerate() {
                    let plain = &mut scratch[..masked.len()];
                    plain.copy_from_slice(masked);
                    apply_mask(plain, mask, (index * SCRATCH) as u64);
                    deflater.push(plain, &mut self.pending)?;
                }
            }
        }
        deflater.flush(&mut self.pending)?;
        if header.is_final() {
            let end = self.pending.len() - TAIL.len();
            if self.pending.len() >= MAX_HEADER + TAIL.len() && self.pending.ends_with(&TAIL) {
                self.pending.truncate(end);
            }
            if self.pending.len() == MAX_HEADER {
                // Nothing came out because nothing went in: an empty block, without its tail.
                self.pending.push(0);
            }
        }
        let alone = header.is_final() && before == Message::None;
        let size = self.pending.len() - MAX_HEADER;
        let smaller = size < payload.len();
        if self.takeover || !header.is_final() {
            self.deflater = Some(deflater);
        } else {
            pool::give_deflater(deflater);
        }
        if alone && !self.takeover && !smaller {
            self.pending.clear();
            return Ok(false);
        }
        // The engine drew the mask for this frame, and no other is sent with it.
        if let Some(mask) = header.mask {
            apply_mask(&mut self.pending[MAX_HEADER..], mask, 0);
        }
        let rsv1 = if before == Message::None { RSV1 } else { 0 };
        let fin = if header.is_final() { FIN } else { 0 };
        self.sent = write_before(&mut self.pending, fin | rsv1 | header.opcode(), header.mask, size);
        self.message = if header.is_final() { Message::None } else { Message::Compressed };
        Ok(true)
    }
}
