//! What is sent: how large, with what in it, and the tag that says whose a message is and when it was due.
//!
//! The tag carries the due time to the server and back, so nothing need be kept of a message that is on its way, and its
//! round trip is counted from when it should have left, however late it did.

use agent::cli::parse_size;
use clap::ValueEnum;
use fastrand::Rng;
use tokio_tungstenite::tungstenite::protocol::frame::Utf8Bytes;
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// Bytes of a tag: [`RANK`] digits of the connection's rank, the rest of the due time.
pub(super) const TAG: usize = 16;
const RANK: usize = 6;
/// Text, so that it may stand in a text message.
const DIGITS: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";

/// Payloads are cut from a pool of this many bytes, more than any compressor looks back.
const POOL: usize = 1 << 18;
const WORDS: &str =
    "the quick brown fox jumps over the lazy dog while every connection waits for its next message; ";

/// Payload sizes in bytes, each equally likely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sizes {
    /// One of these. Never empty.
    List(Vec<usize>),
    /// From the first to the second, both included.
    Range(usize, usize),
}

impl Sizes {
    /// Reads `64`, `64B`, `64B,1KiB,8KiB` or `16B..8KiB`.
    ///
    /// # Errors
    /// In words, what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let size = |text: &str| {
            let text = text.trim();
            if let Ok(bytes) = text.parse() {
                return Ok(bytes);
            }
            let size = parse_size(text).map_err(|error| error.to_string())?;
            usize::try_from(size).map_err(|_| format!("{text:?} is too large"))
        };
        match text.split_once("..") {
            Some((from, to)) => match (size(from)?, size(to)?) {
                (from, to) if from <= to => Ok(Self::Range(from, to)),
                _ => Err(format!("{text:?} ends before it begins")),
            },
            None => Ok(Self::List(text.split(',').map(size).collect::<Result<_, _>>()?)),
        }
    }

    /// The largest.
    pub fn largest(&self) -> usize {
        match self {
            Self::List(sizes) => sizes.iter().copied().max().unwrap_or_default(),
            Self::Range(_, to) => *to,
        }
    }

    /// Whether every message has room for a tag.
    pub(super) fn tagged(&self) -> bool {
        match self {
            Self::List(sizes) => sizes.iter().all(|size| *size >= TAG),
            Self::Range(from, _) => *from >= TAG,
        }
    }

    fn pick(&self, rng: &mut Rng) -> usize {
        match self {
            Self::List(sizes) => sizes.get(rng.usize(..sizes.len().max(1))).copied().unwrap_or_default(),
            Self::Range(from, to) => rng.usize(*from..=*to),
        }
    }
}

/// What messages consist of behind their tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Payload {
    /// English words: compresses well.
    Text,
    /// Random; in text messages random letters and digits, which still compress to three quarters.
    Random,
    /// Zero bytes: compresses to nothing.
    Zeros,
}

/// Makes messages.
pub(super) struct Maker {
    sizes: Sizes,
    binary: bool,
    pool: Vec<u8>,
}

impl Maker {
    pub(super) fn new(sizes: Sizes, binary: bool, payload: Payload, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let pool = match payload {
            Payload::Text => WORDS.bytes().cycle().take(POOL).collect(),
            Payload::Random if binary => (0..POOL).map(|_| rng.u8(..)).collect(),
            Payload::Random => (0..POOL).map(|_| digit(rng.u64(..))).collect(),
            Payload::Zeros => vec![0; POOL],
        };
        Self { sizes, binary, pool }
    }

    /// A message of connection `rank` that was due at `due`, in nanoseconds.
    pub(super) fn message(&self, rank: u32, due: u64, rng: &mut Rng) -> Message {
        let size = self.sizes.pick(rng);
        let mut payload = Vec::with_capacity(size);
        payload.extend(&tag(rank, due)[..size.min(TAG)]);
        let mut from = rng.usize(..POOL);
        while payload.len() < size {
            let end = POOL.min(from + size - payload.len());
            payload.extend(&self.pool[from..end]);
            from = 0;
        }
        let payload = Bytes::from(payload);
        if self.binary {
            return Message::Binary(payload);
        }
        // Only ASCII went in, so this does not fail; were it to, the message goes out as binary.
        match Utf8Bytes::try_from(payload.clone()) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(payload),
        }
    }
}

fn digit(value: u64) -> u8 {
    DIGITS[(value & 63) as usize]
}

fn tag(rank: u32, due: u64) -> [u8; TAG] {
    std::array::from_fn(|at| match at {
        0..RANK => digit(u64::from(rank) >> (6 * (RANK - 1 - at))),
        _ => digit(due >> (6 * (TAG - 1 - at))),
    })
}

/// When the message that starts with this tag was due, if it is one of connection `rank`.
pub(super) fn due_of(payload: &[u8], rank: u32) -> Option<u64> {
    let field = |digits: &[u8]| {
        digits.iter().try_fold(0, |value, digit| {
            let digit = DIGITS.iter().position(|known| known == digit)?;
            Some(value << 6 | digit as u64)
        })
    };
    let (of, due) = payload.get(..TAG)?.split_at(RANK);
    (field(of) == Some(u64::from(rank))).then(|| field(due)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_on_its_own_connection_only() {
        for (rank, due) in [(0, 0), (7, 1_234_567_890_123), (u32::MAX, (1 << 60) - 1)] {
            let tag = tag(rank, due);
            assert_eq!(due_of(&tag, rank), Some(due));
            assert_eq!(due_of(&tag, rank ^ 1), None);
            assert_eq!(due_of(&tag[..15], rank), None);
        }
        assert_eq!(due_of(b"................", 0), None);
    }

    #[test]
    fn sizes_as_written() {
        assert_eq!(Sizes::parse("128B"), Ok(Sizes::List(vec![128])));
        assert_eq!(Sizes::parse("64B, 1KiB"), Ok(Sizes::List(vec![64, 1024])));
        assert_eq!(Sizes::parse("16..8KiB"), Ok(Sizes::Range(16, 8192)));
        for wrong in ["", "8KiB..16", "x", "1..", "1,,2"] {
            assert!(Sizes::parse(wrong).is_err(), "{wrong}");
        }
        assert!(!Sizes::Range(15, 99).tagged() && Sizes::Range(16, 99).tagged());
    }

    #[test]
    fn messages_have_their_sizes_and_nothing_but_text_in_text() {
        let mut rng = Rng::with_seed(1);
        for payload in [Payload::Text, Payload::Random, Payload::Zeros] {
            for size in [0, 5, 16, 17, 3 * POOL + 1] {
                let maker = Maker::new(Sizes::List(vec![size]), false, payload, 1);
                let message = maker.message(3, 4, &mut rng);
                assert!(message.is_text() && message.len() == size, "{payload:?} {size}");
            }
        }
        let maker = Maker::new(Sizes::Range(16, 18), true, Payload::Random, 1);
        let mut seen: Vec<usize> = (0..99).map(|_| maker.message(0, 0, &mut rng).len()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [16, 17, 18]);
    }
}
