//! Is this older connection a WebSocket?
//!
//! A connection whose handshake was not seen is judged by its frames, both directions together. Packets mostly begin where
//! a frame does, so a guess starts at a packet's first byte; from then on every frame must begin where the one before
//! ended. What counts is a *fit*: a header that is plausible where it was predicted ([`Lead::is_valid`], shortest length
//! form, same mask as before), and once more where a frame ends exactly with its packet. Random bytes make a valid header
//! once in about 85 tries and a fit of both kinds once in 10,000.
//!
//! Protocols that are not random need more than numbers: an MQTT client that subscribes sends what reads as unmasked binary
//! frames, but its peer answers with what no WebSocket peer may send. So the two directions must agree: one masked,
//! one not (RFC 6455 section 5.1), and one direction alone convinces only while the other does not object.

use crate::frame::{self, Lead};
use crate::reorder::before;
use crate::tracker::Payload;
use crate::tracker::resync::is_plausible;

/// Fits of both directions together that make a WebSocket, where both have some.
const ENOUGH: u8 = 6;
/// Fits of one direction that do so alone: of a client's, whose masked frames nothing else resembles ...
const ENOUGH_MASKED: u8 = 6;
/// ... and of a server's.
const ENOUGH_UNMASKED: u8 = 16;
/// Packets that contradict the guess before the connection is left alone. Generous, because a long message that is under
/// way when the agent starts looks like noise to its end.
pub const PATIENCE: u16 = 512;
/// Headers looked at in one packet.
pub const HEADERS: u32 = 8;
/// Packets that begin like a TLS record until the connection is taken for TLS.
const TLS_RECORDS: u8 = 3;

/// One direction of a candidate.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Side {
    /// End of what was seen: sequence number of the next new byte.
    pub seen: u32,
    /// Sequence number at which the next frame begins, if `fits` is not 0.
    boundary: u32,
    /// Packets that contradicted the guess.
    contradictions: u16,
    /// Fits in a row.
    fits: u8,
    /// Mask of the frames seen so far: 0 none seen, 1 unmasked, 2 masked.
    mask: u8,
    /// Packets in a row that began like a TLS record.
    records: u8,
    /// A packet was seen.
    begun: u8,
    /// Keeps the size a multiple of 8 without padding.
    reserved: [u8; 2],
}

/// A connection that may be a WebSocket, keyed by its socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Candidate {
    /// From the peer.
    pub received: Side,
    /// To the peer.
    pub sent: Side,
}

/// What is known of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Not enough.
    Undecided,
    /// It is a WebSocket; `true` where this host's socket is the server's.
    WebSocket(bool),
    /// It is TLS.
    Tls,
    /// It is neither.
    Other,
}

const UNMASKED: u8 = 1;
const MASKED: u8 = 2;

/// A look at one packet of a candidate. Sans-IO like the tracker: [`Observation::begin`], then [`Observation::step`] until
/// it returns `false`, at most [`HEADERS`] times.
pub struct Observation<'a, P> {
    /// The direction the packet belongs to.
    pub side: &'a mut Side,
    /// The packet.
    pub payload: P,
    /// TCP sequence number of its payload.
    pub seq: u32,
    /// Length of the payload, not 0.
    pub len: u32,
    /// Where in it the next header is looked for.
    pub at: u32,
}

impl<P: Payload> Observation<'_, P> {
    /// Finds out where to look. Returns whether there is anything to look at.
    #[inline(always)]
    pub fn begin(&mut self) -> bool {
        let (side, seq) = (&mut *self.side, self.seq);
        let end = seq.wrapping_add(self.len);
        if side.begun != 0 && !before(side.seen, end) {
            return false;
        }
        side.seen = end;
        side.begun = 1;
        self.at = 0;
        if side.fits > 0 && !before(side.boundary, seq) {
            self.at = side.boundary.wrapping_sub(seq);
            return self.at < self.len;
        }
        side.restart();
        true
    }

    /// Looks at one header; returns whether another is to be looked at.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        let (side, at) = (&mut *self.side, self.at);
        let available = self.len - at;
        let wanted = if available < frame::MAX_HEADER as u32 { available } else { frame::MAX_HEADER as u32 };
        let mut header = [0u8; 16];
        if !self.payload.load(at, &mut header, wanted) {
            return side.restart();
        }
        if at == 0 {
            side.note_record(&header, self.len);
        }
        let lead = Lead::new(header[0], header[1]);
        let header_len = lead.header_len() as u32;
        if wanted < 2 || wanted < header_len {
            // A header that is cut: the next packet is a new chance.
            return side.restart();
        }
        if !side.is_plausible(lead, &header) {
            side.contradictions = side.contradictions.saturating_add(1);
            return side.restart();
        }
        let frame_len = header_len as u64 + frame::payload_len(&header);
        let fits = frame_len == available as u64;
        side.mask = if lead.is_masked() { MASKED } else { UNMASKED };
        // A continuation alone says little: zeroes read as one.
        let worth = u8::from(lead.opcode() != frame::CONTINUATION) + u8::from(fits);
        side.fits = side.fits.saturating_add(worth);
        side.boundary = self.seq.wrapping_add(at).wrapping_add(frame_len as u32);
        self.at = at.wrapping_add(frame_len as u32);
        frame_len < available as u64
    }
}

impl Side {
    #[inline(always)]
    fn is_plausible(&self, lead: Lead, header: &[u8; 16]) -> bool {
        is_plausible(lead, header, lead.is_masked())
            && (self.mask == 0 || (self.mask == MASKED) == lead.is_masked())
    }

    /// RFC 8446 section 5.1: type 20 to 23, version 3.x, at most 2^14 + 256 bytes.
    #[inline(always)]
    fn note_record(&mut self, header: &[u8; 16], len: u32) {
        let size = u16::from_be_bytes([header[3], header[4]]);
        let is_record = len >= 5
            && header[0] >= 20
            && header[0] <= 23
            && header[1] == 3
            && header[2] <= 4
            && size <= (1 << 14) + 256;
        self.records = if is_record { self.records.saturating_add(1) } else { 0 };
    }

    /// Forgets the guess; nothing more is to be looked at in this packet.
    #[inline(always)]
    fn restart(&mut self) -> bool {
        self.fits = 0;
        self.mask = 0;
        false
    }

    /// Whether a packet was seen.
    pub const fn begun(&self) -> bool {
        self.begun != 0
    }

    /// Bytes from what was seen to where the next frame begins; `None` where that is not known.
    pub const fn boundary(&self) -> Option<u32> {
        if self.fits == 0 || before(self.boundary, self.seen) {
            None
        } else {
            Some(self.boundary.wrapping_sub(self.seen))
        }
    }
}

impl Candidate {
    /// Weighs what both directions have shown.
    #[inline(always)]
    pub fn judge(&self) -> Judgement {
        let (received, sent) = (&self.received, &self.sent);
        if received.records >= TLS_RECORDS || sent.records >= TLS_RECORDS {
            return Judgement::Tls;
        }
        if received.contradictions >= PATIENCE || sent.contradictions >= PATIENCE {
            return Judgement::Other;
        }
        let is_server = received.mask == MASKED || sent.mask == UNMASKED;
        if received.mask != 0 && sent.mask != 0 {
            return if received.mask != sent.mask && received.fits.saturating_add(sent.fits) >= ENOUGH {
                Judgement::WebSocket(is_server)
            } else {
                Judgement::Undecided
            };
        }
        let (alone, other) = if received.mask != 0 { (received, sent) } else { (sent, received) };
        let enough = if alone.mask == MASKED { ENOUGH_MASKED } else { ENOUGH_UNMASKED };
        if alone.mask != 0 && alone.fits >= enough && other.contradictions == 0 {
            return Judgement::WebSocket(is_server);
        }
        Judgement::Undecided
    }
}
