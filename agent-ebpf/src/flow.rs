//! Which untracked flows can be skipped unseen.
//!
//! Looking at a packet's payload costs several times what the rest of the program costs, and nearly all packets of a
//! host belong to flows that will never become a WebSocket. A direct-mapped table of 64-bit words remembers that: a
//! flow (one direction of a connection) whose first bytes are neither an HTTP/1.x request nor a response never takes part
//! in an upgrade later (RFC 9112 section 2: a connection's messages follow one another from its first byte on).
//!
//! The skip comes before the look-up of the socket's state, so it must never hit a tracked connection: whoever starts
//! tracking one clears the word of the flow in the other direction, and only untracked packets write words.
//!
//! A SYN starts its flow anew, so a reused port is judged afresh, by its first few packets. Flows older than the agent are judged by sample:
//! [`SAMPLES`] packets in a row that do not begin like a message. A word is read and written whole; a race between
//! CPUs loses one observation and nothing else.

/// Words in the table, a power of two: 512 KiB for about that many concurrent flows.
pub const FLOWS: usize = 1 << 16;

/// Packets that settle what a flow of unknown beginning carries.
pub const SAMPLES: u64 = 64;
/// Packets that settle what a flow carries whose SYN was seen. Not one: its first segment may come late.
pub const FIRST_SAMPLES: u64 = 4;

/// The flow's SYN was seen, its first payload was not.
const FRESH: u64 = 1;
/// It carries HTTP/1.x messages: every packet may be part of a handshake.
const HTTP: u64 = 2;
/// Its beginning was not seen; the low byte counts the packets looked at.
const UNKNOWN: u64 = 3;
/// It will never carry a 101 that is wanted.
const OTHER: u64 = 4;

/// Where a flow is in the table, and what tells it from others that fall on the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Index of the word, below [`FLOWS`].
    pub index: usize,
    tag: u64,
}

/// How a payload begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Like an HTTP/1.x message.
    Http,
    /// Like anything else.
    Else,
}

impl Key {
    /// `ports` are both ports as they stand in the packet, `source` and `destination` the addresses (for IPv6 their last
    /// words), `hash` the packet's flow hash: random per connection where TCP sets it, which tells equal addresses in
    /// different network namespaces apart. `inbound` keeps the two sockets of a connection within this host apart:
    /// what settles a flow at its sender must not hide it at its receiver.
    ///
    /// `secret` is a random number of this agent's. Without it, a peer could choose a port with which its flow settles that of
    /// another. Two multiplications with it in between, so that no difference of the input has a known difference here.
    #[inline(always)]
    pub const fn new(
        secret: u64,
        ports: u32,
        (source, destination): (u32, u32),
        hash: u32,
        inbound: bool,
    ) -> Self {
        const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
        let flow = (ports as u64) << 32 | (source ^ destination.rotate_left(16)) as u64;
        let once = (flow ^ secret).wrapping_mul(MIX);
        let mixed = (once ^ once >> 32 ^ secret.rotate_left(32)).wrapping_mul(secret | 1);
        Key {
            index: ((mixed >> 48) as usize ^ inbound as usize) & (FLOWS - 1),
            tag: ((mixed >> 16) as u32 ^ hash) as u64,
        }
    }

    /// The word of a flow whose SYN just went by.
    #[inline(always)]
    pub const fn fresh(self) -> u64 {
        self.word(FRESH, 0)
    }

    /// The word of a flow that nobody wants to hear of.
    #[inline(always)]
    pub const fn unwanted(self) -> u64 {
        self.word(OTHER, 0)
    }

    /// Whether the flow may be skipped, by its word in the table.
    #[inline(always)]
    pub const fn is_settled(self, word: u64) -> bool {
        word == self.unwanted()
    }

    /// Whether an HTTP message went by in this flow before.
    #[inline(always)]
    pub const fn is_http(self, word: u64) -> bool {
        word == self.word(HTTP, 0)
    }

    /// A number for the table of handshakes: where the flow's is, and what tells it from others. Wants a key made with
    /// `hash` 0.
    #[inline(always)]
    pub const fn exchange(self) -> (u32, u64) {
        (self.index as u32, self.tag << 32 | self.index as u64 | 1 << 31)
    }

    /// Whether the word speaks of another flow, or of none.
    #[inline(always)]
    pub const fn is_new(self, word: u64) -> bool {
        word >> 32 != self.tag
    }

    /// The flow's next word, after a payload was looked at.
    #[inline(always)]
    pub const fn after(self, word: u64, start: Start) -> u64 {
        let (state, seen) = if self.is_new(word) { (UNKNOWN, 0) } else { (word >> 8 & 0xff, word & 0xff) };
        match (start, state) {
            (Start::Http, _) | (_, HTTP) => self.word(HTTP, 0),
            (Start::Else, UNKNOWN) if seen + 1 < SAMPLES => self.word(UNKNOWN, seen + 1),
            (Start::Else, FRESH) => self.word(UNKNOWN, SAMPLES - FIRST_SAMPLES + 1),
            (Start::Else, _) => self.unwanted(),
        }
    }

    #[inline(always)]
    const fn word(self, state: u64, seen: u64) -> u64 {
        self.tag << 32 | state << 8 | seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: u64 = 0x0123_4567_89ab_cdef;

    fn key() -> Key {
        Key::new(SECRET, 0x1234_0050, (1, 2), 3, false)
    }

    #[test]
    fn a_flow_that_does_not_begin_with_http_is_settled_soon() {
        let key = key();
        let mut word = key.fresh();
        for sample in 0..FIRST_SAMPLES {
            assert!(!key.is_settled(word), "sample {sample}");
            word = key.after(word, Start::Else);
        }
        assert!(key.is_settled(word));
        let late = key.after(key.after(key.fresh(), Start::Else), Start::Http);
        assert!(key.is_http(late), "the first segment came second");
    }

    #[test]
    fn an_http_flow_is_never_settled() {
        let key = key();
        let mut word = key.after(key.fresh(), Start::Http);
        for _ in 0..1000 {
            word = key.after(word, Start::Else);
            assert!(!key.is_settled(word));
        }
    }

    #[test]
    fn a_flow_of_unknown_beginning_gets_its_samples() {
        let key = key();
        let mut word = 0;
        for sample in 0..SAMPLES {
            assert!(!key.is_settled(word), "sample {sample}");
            word = key.after(word, Start::Else);
        }
        assert!(key.is_settled(word));
        let late = (0..10).fold(0, |word, _| key.after(word, Start::Else));
        assert!(!key.is_settled(key.after(late, Start::Http)));
    }

    #[test]
    fn a_syn_and_a_stranger_start_anew() {
        let key = key();
        let settled = key.unwanted();
        assert!(key.is_settled(settled) && !key.is_settled(key.fresh()));
        let other_namespace = Key::new(SECRET, 0x1234_0050, (1, 2), 4, false);
        assert_eq!(other_namespace.index, key.index);
        let receiver = Key::new(SECRET, 0x1234_0050, (1, 2), 3, true);
        assert_ne!(receiver.index, key.index, "the receiver's word is another");
        assert!(other_namespace.is_new(settled) && !other_namespace.is_settled(settled));
    }

    #[test]
    fn flows_that_share_a_place_under_one_secret_do_not_under_another() {
        let keys = |secret: u64| {
            (0..2_000_000u32).map(move |number| Key::new(secret, number.rotate_left(16), (7, 9), 0, true))
        };
        let target = Key::new(SECRET, 0x1234_0050, (7, 9), 0, true);
        let sharing: Vec<u32> = keys(SECRET)
            .zip(0..)
            .filter(|(key, _)| key.index == target.index)
            .map(|(_, number)| number)
            .collect();
        assert!(sharing.len() > 10, "there are so many flows that some share it");
        let other = SECRET ^ 1 << 17;
        let target = Key::new(other, 0x1234_0050, (7, 9), 0, true);
        let still =
            |number: &&u32| Key::new(other, number.rotate_left(16), (7, 9), 0, true).index == target.index;
        assert!(sharing.iter().filter(still).count() <= sharing.len() / 10);
    }
}
