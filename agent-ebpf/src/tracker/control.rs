//! Control frames: their payload says which ping a pong answers, and why a connection is closed.

use super::{FLAG_CONTROL, FLAG_HOLED, FLAG_PING, FLAG_PONG, FLAGS_OF_FRAME, Payload, Tally, Tracker};
use crate::frame::{self, Lead};
use crate::keepalive;

impl<P: Payload, T: Tally> Tracker<'_, P, T> {
    /// Pings, pongs and closes carry meaning beyond their count, which takes their payload.
    #[inline(always)]
    pub(super) fn control(&mut self, lead: Lead, header: &[u8; 16]) {
        let kind = match lead.opcode() {
            frame::PING => FLAG_PING,
            frame::PONG => FLAG_PONG,
            _ => 0,
        };
        self.direction.flags |= FLAG_CONTROL | kind;
        self.direction.digest = 0;
        self.direction.control_len = self.direction.remaining as u8;
        // A valid control frame has the short length form, so the masking key is right behind the first two bytes.
        self.direction.key = match lead.is_masked() {
            true => u32::from_le_bytes([header[2], header[3], header[4], header[5]]),
            false => 0,
        };
        if self.direction.remaining == 0 {
            self.complete();
        }
    }

    /// Eats up to 16 payload bytes of a control frame.
    #[inline(always)]
    pub(super) fn eat_control(&mut self) {
        let available = self.len - self.offset;
        // At most 125 (`Lead::is_valid`).
        let remaining = self.direction.remaining as u32;
        let most = if available < remaining { available } else { remaining };
        let taken = if most < 16 { most } else { 16 };
        let mut bytes = [0u8; 16];
        if taken == 0 {
            return;
        }
        if !self.payload.load(self.offset, &mut bytes, taken) {
            self.give_up();
            return;
        }
        let position = self.direction.control_len as u32 - remaining;
        let words = unmasked(&bytes, taken, self.direction.key, position);
        if self.direction.flags & (FLAG_PING | FLAG_PONG) != 0 {
            self.direction.digest = keepalive::digest(self.direction.digest, words, position);
        } else if position < 2 {
            // A close: its status code is the first two bytes, however they are cut.
            self.direction.digest |= words[0] << (position * 8);
        }
        self.direction.remaining = (remaining - taken) as u64;
        self.offset += taken;
        self.direction.counters.control(taken as u64);
        self.totals.control(taken as u64);
        if self.direction.remaining == 0 {
            self.complete();
        }
    }

    /// A control frame's payload has ended.
    #[inline(always)]
    fn complete(&mut self) {
        let flags = self.direction.flags;
        self.direction.flags = flags & !FLAGS_OF_FRAME;
        if flags & FLAG_HOLED != 0 {
            if flags & FLAG_PING != 0 {
                keepalive::unseen_ping(self.direction);
            } else if flags & FLAG_PONG != 0 {
                keepalive::found(self.direction, self.other);
            }
            return;
        }
        if flags & FLAG_PING != 0 {
            keepalive::ping(self.direction, self.other, self.payload.now_ns());
        } else if flags & FLAG_PONG != 0 {
            keepalive::pong(self.direction, self.other, self.totals, self.payload.now_ns());
        } else if self.direction.control_len >= 2 {
            // Section 5.5.1, network byte order.
            self.direction.close_code = (self.direction.digest as u16).swap_bytes();
        }
    }
}

/// `len` (1–16) bytes of a payload without their mask, as little-endian words that are zero beyond the last byte. `key` is
/// the masking key, its first byte lowest, and `position` that of the first byte in the payload (section 5.3).
#[inline(always)]
fn unmasked(bytes: &[u8; 16], len: u32, key: u32, position: u32) -> [u64; 2] {
    let value = u128::from_le_bytes(*bytes);
    let turned = key.rotate_right((position & 3) * 8) as u64;
    let key = turned << 32 | turned;
    let keep = |bytes: u32| if bytes >= 8 { u64::MAX } else { (1 << (bytes * 8)) - 1 };
    [(value as u64 ^ key) & keep(len), ((value >> 64) as u64 ^ key) & keep(len.saturating_sub(8))]
}
