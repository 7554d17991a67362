//! Pings and the pongs that answer them (RFC 6455 sections 5.5.2 and 5.5.3).
//!
//! A pong carries its ping's payload, so the two are matched by a hash of it, over the last two pings: a peer may answer
//! only the newest, and a pong may be slower than the next ping. Where both would match (their payloads are equal and
//! neither was answered), it cannot be known which of them a pong answers: neither it nor the next one has a round trip.
//!
//! Where a direction has no boundary, its pings and pongs pass unseen, and nobody is blamed for that:
//! - For pings, two marks stand in that say "there may have been one". A pong that matches no ping takes one of them, and
//!   two pings that are seen push them out, as they do any other. While the boundary is lost, such pongs are not counted.
//! - For pongs, the last ping before the boundary was found is excused: it is not missed if no pong comes any more.

use crate::abi::{Direction, Parse, Tally};

/// An odd constant with well-mixed bits (2^64 divided by the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Set in the mark of an older ping that was counted as missed.
const MISSED: u64 = 1 << 63;
/// Set in [`Direction::answered`] where the ping's pong may have passed unseen.
const EXCUSED: u64 = 1 << 62;
/// Bits of a mark's upper half that are of the payload.
const HASH: u32 = u32::MAX >> 2;

/// The payload hash and the time of a ping in one word: see [`Direction::pings`].
#[inline(always)]
const fn mark(hash: u32, now_ns: u64) -> u64 {
    // Odd: 0 means none, and even ones stand for pings that may have passed unseen.
    (hash as u64) << 32 | (now_ns >> 8 & 0xffff_ffff) | 1
}

#[inline(always)]
const fn is_seen(mark: u64) -> bool {
    mark & 1 != 0
}

#[inline(always)]
const fn is_unseen(mark: u64) -> bool {
    mark & 1 == 0 && mark != 0
}

/// The mark of a ping that may have passed unseen, another one at each place of the stream.
#[inline(always)]
const fn unseen(direction: &Direction) -> u64 {
    (direction.next_seq as u64) << 3 | 2
}

/// Pings of this direction pass unseen from here on, until its boundary is found.
#[inline(always)]
pub(crate) fn lost(direction: &mut Direction) {
    let unseen = unseen(direction);
    direction.pings = [unseen, unseen | 4];
}

/// One ping of this direction was not seen whole.
#[inline(always)]
pub(crate) fn unseen_ping(direction: &mut Direction) {
    direction.pings = [unseen(direction), direction.pings[0]];
}

/// Pongs of this direction passed unseen up to here.
#[inline(always)]
pub(crate) fn found(direction: &mut Direction, other: &Direction) {
    let last = other.pings[0];
    if is_seen(last) && !answered(direction, last) {
        answer(direction, last | EXCUSED);
    }
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
    (mark >> 32) as u32 & HASH
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
    ((digest ^ len as u64).wrapping_mul(MIX) >> 32) as u32 & HASH
}

/// A ping of this direction is complete.
#[inline(always)]
pub(crate) fn ping(direction: &mut Direction, other: &Direction, now_ns: u64) {
    let last = direction.pings[0];
    direction.pings[1] = last;
    if is_seen(last) {
        direction.ping_interval_ns = now_ns.wrapping_sub(direction.last_ping_ns);
        let is_known = answered(other, last) || answered(other, last | EXCUSED);
        // Nothing is missed where pongs cannot be seen.
        if !is_known && other.parse < Parse::Unsynced as u8 {
            direction.pings_missed += 1;
            direction.pings[1] = last | MISSED;
        }
    }
    direction.last_ping_ns = now_ns;
    let new = mark(hash(direction.digest, direction.control_len), now_ns);
    // Two pings in one packet would be one.
    direction.pings[0] = if new == last { new.wrapping_add(2) } else { new };
}

/// A pong of this direction is complete.
#[inline(always)]
pub(crate) fn pong(direction: &mut Direction, other: &Direction, totals: &mut impl Tally, now_ns: u64) {
    let hash = hash(direction.digest, direction.control_len);
    let [newest, older] = other.pings;
    let open = |mark: u64, direction: &Direction| {
        is_seen(mark) && hash_of(mark) == hash && !answered(direction, mark)
    };
    let (to_newest, to_older) = (open(newest, direction), open(older, direction));
    if !to_newest && !to_older {
        return unmatched(direction, other);
    }
    let ping = if to_newest { newest } else { older };
    answer(direction, ping);
    if ping & MISSED != 0 {
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

/// A pong that matches no ping was not asked for, unless its ping may have passed unseen.
#[inline(always)]
fn unmatched(direction: &mut Direction, other: &Direction) {
    if other.parse == Parse::Unsynced as u8 {
        return;
    }
    // The older one first, as pongs come in the order of their pings.
    let [newest, older] = other.pings;
    for mark in [older, newest] {
        if is_unseen(mark) && !answered(direction, mark) {
            return answer(direction, mark);
        }
    }
    direction.pongs_unsolicited += 1;
}

#[inline(always)]
fn answer(pongs: &mut Direction, ping: u64) {
    pongs.answered = [ping, pongs.answered[0]];
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
