//! Headers of frames (RFC 6455 section 5.2), as far as compression has to know them.

pub(super) const FIN: u8 = 0x80;
pub(super) const RSV1: u8 = 0x40;
/// The three reserved bits.
const RSV: u8 = 0x70;
const OPCODE: u8 = 0x0F;
const CONTROL: u8 = 0x08;
pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;

/// Longest header.
pub(super) const MAX_HEADER: usize = 14;

/// A header that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    first: u8,
    pub(super) mask: Option<[u8; 4]>,
    /// Length of the payload.
    pub(super) payload: u64,
    /// Its own length.
    pub(super) size: usize,
}

impl Header {
    /// `None` until all of it is there.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let (payload, rest) = match second & 0x7F {
            126 => rest
                .split_first_chunk()
                .map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?,
            127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
            short => (u64::from(short), rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            rest.split_first_chunk().map(|(mask, rest)| (Some(*mask), rest))?
        };
        Some(Self { first, mask, payload, size: bytes.len() - rest.len() })
    }

    pub(super) fn is_final(&self) -> bool {
        self.first & FIN != 0
    }

    pub(super) fn opcode(&self) -> u8 {
        self.first & OPCODE
    }

    pub(super) fn is_control(&self) -> bool {
        self.first & CONTROL != 0
    }

    /// The reserved bits.
    pub(super) fn reserved(&self) -> u8 {
        self.first & RSV
    }

    /// Header and payload.
    pub(super) fn whole(&self) -> u64 {
        (self.size as u64).saturating_add(self.payload)
    }
}

/// Writes a header so that it ends where the payload begins, at [`MAX_HEADER`], and says where it begins.
pub(super) fn write_before(space: &mut [u8], first: u8, mask: Option<[u8; 4]>, payload: usize) -> usize {
    let mut header = Vec::with_capacity(MAX_HEADER);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    header.push(first);
    match (u8::try_from(payload), u16::try_from(payload)) {
        (Ok(short @ 0..126), _) => header.push(masked | short),
        (_, Ok(long)) => {
            header.push(masked | 126);
            header.extend(long.to_be_bytes());
        }
        _ => {
            header.push(masked | 127);
            header.extend((payload as u64).to_be_bytes());
        }
    }
    header.extend(mask.iter().flatten());
    let start = MAX_HEADER - header.len();
    space[start..MAX_HEADER].copy_from_slice(&header);
    start
}

/// Masks or unmasks `bytes`, which begin at offset `at` of the payload.
pub(super) fn apply_mask(bytes: &mut [u8], mask: [u8; 4], at: u64) {
    let mut mask = mask;
    mask.rotate_left((at % 4) as usize);
    let mut chunks = bytes.chunks_exact_mut(4);
    let word = u32::from_ne_bytes(mask);
    for chunk in chunks.by_ref() {
        // Cannot fail: the chunks are of four bytes.
        if let Ok(four) = <[u8; 4]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u32::from_ne_bytes(four) ^ word).to_ne_bytes());
        }
    }
    chunks.into_remainder().iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        for payload in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 40] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let mut space = [0; MAX_HEADER];
                let start = write_before(&mut space, FIN | RSV1 | TEXT, mask, payload);
                let bytes = &space[start..];
                let header = Header::parse(bytes).unwrap();
                let size = bytes.len();
                assert_eq!(header, Header { first: 0xC1, mask, payload: payload as u64, size });
                (0..size).for_each(|cut| assert_eq!(Header::parse(&bytes[..cut]), None));
            }
        }
    }

    #[test]
    fn masks_apply_from_any_offset() {
        let mask = [1, 2, 3, 4];
        let plain: Vec<u8> = (0..50).collect();
        let expected: Vec<u8> =
            plain.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        for cut in 0..50 {
            let mut bytes = plain.clone();
            let (first, second) = bytes.split_at_mut(cut);
            apply_mask(first, mask, 0);
            apply_mask(second, mask, cut as u64);
            assert_eq!(bytes, expected);
        }
    }
}
