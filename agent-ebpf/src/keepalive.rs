//! Pings and the pongs that answer them (RFC 6455 sections 5.5.2 and 5.5.3).
//!
//! A pong carries its ping's payload, so the two are matched by a hash of it, over the last two pings: a peer may answer
//! only the newest, and a pong may be slower than the next ping. Where both would match (their payloads are equal and
//! neither was answered), it cannot be known which of them a pong answers: neither it nor the next one has a round trip.

use crate::abi::{Direction, Parse, Tally};

/// An odd constant with well-mixed bits (2^64 divided by the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The payload hash and the time of a ping in one word: see [`Direction::pings`].
#[inline(always)]
const fn mark(hash: u32, now_ns: u64) -> u64 {
    // Never 0, which means none: the lowest bit of the time is given away for that.
    (hash as u64) << 32 | (now_ns >> 8 & 0xffff_ffff) | 1
}

/// A pong that comes later than this has no round trip: marks count the time modulo twice as much.
const LONGEST_NS: u64 = 1 << 39;

/// Time since a mark was made.
#[inline(always)]
const fn since(mark: u64, now_ns: u64) -> u64 {
    let now = (now_ns >> 8) as u32 | 1;
    (now.wrapping_sub(mark as u32) as u64) << 8
}

#[inline(always)]
const fn hash_of(mark: u64) -> u32 {
    (mark >> 32) as u32
}

/// Adds up to 16 payload bytes (`words`, little-endian, zero beyond the last byte) that begin at `position` to a digest.
/// The sum does not depend on how the payload is cut: each 8-byte word of the whole payload has a factor of its own.
#[inline(always)]
pub(crate) fn digest(digest: u64, words: [u64; 2], position: u32) -> u64 {
    let shift = (position & 7) * 8;
    let index = (position >> 3) as u64;
    // What is shifted out of one word falls into the next; shifts by 64 would be undefined.
    let carry = |word: u64| word >> 1 >> (63 - shift);
    let spread = [words[0] << shift, carry(words[0]) | words[1] << shift, carry(words[1])];
    let factor = |index: u64| (2 * index + 1).wrapping_mul(MIX) ^ index << 32;
    digest
        .wrapping_add(spread[0].wrapping_mul(factor(index)))
        .wrapping_add(spread[1].wrapping_mul(factor(index + 1)))
        .wrapping_add(spread[2].wrapping_mul(factor(index + 2)))
}

/// The hash that a mark keeps of a whole payload.
#[inline(always)]
fn hash(digest: u64, len: u8) -> u32 {
    ((digest ^ len as u64).wrapping_mul(MIX) >> 32) as u32
}

/// A ping of this direction is complete.
#[inline(always)]
pub(crate) fn ping(direction: &mut Direction, other: &Direction, now_ns: u64) {
    let last = direction.pings[0];
    if last != 0 {
        direction.ping_interval_ns = now_ns.wrapping_sub(direction.last_ping_ns);
        // Nothing is missed where pongs cannot be seen.
        if !answered(other, last) && other.parse < Parse::Unsynced as u8 {
            direction.pings_missed += 1;
        }
    }
    direction.last_ping_ns = now_ns;
    direction.pings[1] = last;
    let new = mark(hash(direction.digest, direction.control_len), now_ns);
    // Two pings in one packet would be one.
    direction.pings[0] = if new == last { new.wrapping_add(2) } else { new };
}

/// A pong of this direction is complete.
#[inline(always)]
pub(crate) fn pong(direction: &mut Direction, other: &Direction, totals: &mut impl Tally, now_ns: u64) {
    let hash = hash(direction.digest, direction.control_len);
    let [newest, older] = other.pings;
    let open =
        |mark: u64, direction: &Direction| mark != 0 && hash_of(mark) == hash && !answered(direction, mark);
    let (to_newest, to_older) = (open(newest, direction), open(older, direction));
    if !to_newest && !to_older {
        direction.pongs_unsolicited += 1;
        return;
    }
    let ping = if to_newest { newest } else { older };
    direction.answered[1] = direction.answered[0];
    direction.answered[0] = ping;
    if !to_newest {
        direction.pongs_late += 1;
    }
    // The older one is still open: where the newest has the same payload, its own answer was as ambiguous as this.
    let ambiguous = to_older && hash_of(newest) == hash;
    // Marks tell no times further back.
    let recent = now_ns.wrapping_sub(other.last_ping_ns) < LONGEST_NS;
    if !ambiguous && recent {
        direction.rtt_ns = since(ping, now_ns);
        totals.round_trip(direction.rtt_ns);
    }
}

#[inline(always)]
fn answered(pongs: &Direction, ping: u64) -> bool {
    pongs.answered[0] == ping || pongs.answered[1] == ping
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_the_cut() {
        let payload: Vec<u8> = (0..125u8).map(|i| i.wrapping_mul(37).wrapping_add(11)).collect();
        let words = |bytes: &[u8]| {
            let mut padded = [0; 16];
            padded[..bytes.len()].copy_from_slice(bytes);
            let value = u128::from_le_bytes(padded);
            [value as u64, (value >> 64) as u64]
        };
        let by = |size: usize| {
            let mut at = 0;
            payload.chunks(size).fold(0, |sum, chunk| {
                let sum = digest(sum, words(chunk), at);
                at += chunk.len() as u32;
                sum
            })
        };
        for size in 1..=16 {
            assert_eq!(by(size), by(16), "{size} bytes at a time");
        }
        let swapped: Vec<u8> = payload[8..16].iter().chain(&payload[..8]).copied().collect();
        assert_ne!(digest(0, words(&swapped), 0), digest(0, words(&payload[..16]), 0));
    }
}
