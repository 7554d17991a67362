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
pub const PATIENCE: u16 = 8192;
/// Headers looked at in one packet.
pub const HEADERS: u32 = 8;
/// Fits after which a direction's boundary is taken for known once the connection is adopted. With fewer, the connection
/// is a WebSocket by what the other direction has shown, and this one finds its boundary by itself.
const KNOWN: u8 = 2;
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
    /// Whether a message in fragments is under way: 0 not known, 1 no, 2 yes.
    message: u8,
    /// Keeps the size a multiple of 8 without padding.
    reserved: u8,
}

/// A connection that may be a WebSocket, keyed by its socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Candidate {
    /// From the peer.
    pub received: Side,
    /// To the peer.
    pub sent: Side,
    /// TCP's `rcv_nxt` when the connection became a candidate: what came since was not parsed.
    pub received_from: u32,
    /// TCP's `write_seq` at that moment.
    pub sent_from: u32,
    /// Process that holds the socket, by the last sweep of iter/task_file; 0 unknown.
    pub pid: u32,
    /// Its descriptor there; meaningless where the process is unknown.
    pub fd: i32,
    /// 1 once a program has taken it upon itself to delete this candidate: of two CPUs that decide at the same moment, one in
    /// each direction, one goes on. `bpf_sk_storage_delete` may tell both that they succeeded.
    pub claimed: u32,
    /// Keeps the size a multiple of 8 without padding.
    pub reserved: u32,
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

const BETWEEN_MESSAGES: u8 = 1;
const IN_MESSAGE: u8 = 2;

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
        let is_continuation = lead.opcode() == frame::CONTINUATION;
        // Zeroes read as continuations, as does any short record behind its length in 2 or 4 bytes, and one that fits.
        let is_worthless = is_continuation && side.message == 0;
        if !is_worthless {
            side.fits = side.fits.saturating_add(u8::from(!is_continuation) + u8::from(fits));
        }
        if !lead.is_control() {
            if lead.is_final() {
                side.message = BETWEEN_MESSAGES;
            } else if !is_worthless {
                side.message = IN_MESSAGE;
            }
        }
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
            && self.is_due(lead)
    }

    /// Section 5.4: only a message that is under way is continued, and it is before the next one begins.
    #[inline(always)]
    fn is_due(&self, lead: Lead) -> bool {
        let wrong = if lead.opcode() == frame::CONTINUATION { BETWEEN_MESSAGES } else { IN_MESSAGE };
        lead.is_control() || self.message != wrong
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
        self.message = 0;
        false
    }

    /// Whether a packet was seen.
    pub const fn begun(&self) -> bool {
        self.begun != 0
    }

    /// Bytes from what was seen to where the next frame begins; `None` where that is not known.
    pub const fn boundary(&self) -> Option<u32> {
        if self.fits < KNOWN || before(self.boundary, self.seen) {
            None
        } else {
            Some(self.boundary.wrapping_sub(self.seen))
        }
    }
}

impl Candidate {
    /// Whether neither direction has shown a frame, so that another guess is as good.
    #[inline(always)]
    pub const fn is_open(&self) -> bool {
        self.received.fits == 0 && self.sent.fits == 0
    }

    /// Weighs what both directions have shown. `local_is_lower`: this host's port is the lower of the two.
    #[inline(always)]
    pub fn judge(&self, local_is_lower: bool) -> Judgement {
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
        // Frames without a mask alone must come from what looks like a server's port: an MQTT client that subscribes many
        // times before it is answered looks like a server in everything else.
        let has_servers_port = alone.mask == MASKED || is_server == local_is_lower;
        if alone.mask != 0 && alone.fits >= enough && other.contradictions == 0 && has_servers_port {
            return Judgement::WebSocket(is_server);
        }
        Judgement::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Packet<'a>(&'a [u8]);

    impl Payload for Packet<'_> {
        fn load(&self, offset: u32, to: &mut [u8; 16], len: u32) -> bool {
            let (offset, len) = (offset as usize, len as usize);
            let bytes = self.0.get(offset..offset + len);
            bytes.inspect(|bytes| to[..len].copy_from_slice(bytes)).is_some()
        }

        fn now_ns(&self) -> u64 {
            0
        }
    }

    fn see(side: &mut Side, packet: &[u8]) {
        let (seq, len) = (side.seen, packet.len() as u32);
        let mut observation = Observation { side, payload: Packet(packet), seq, len, at: 0 };
        if observation.begin() {
            for _ in 0..HEADERS {
                if !observation.step() {
                    break;
                }
            }
        }
    }

    /// What a candidate is after these packets from the peer, and none to it.
    fn judged(packets: &[&[u8]], times: usize) -> Judgement {
        let mut candidate = Candidate::default();
        for packet in packets.iter().cycle().take(times) {
            see(&mut candidate.received, packet);
        }
        candidate.judge(false)
    }

    #[test]
    fn a_server_that_pushes_is_recognised_and_so_are_fragments() {
        assert_eq!(judged(&[b"\x81\x02hi"], 20), Judgement::WebSocket(false));
        let fragments: [&[u8]; 3] = [b"\x01\x02in", b"\x00\x05 more", b"\x80\x07 pieces"];
        assert_eq!(judged(&fragments, 20), Judgement::WebSocket(false));
        assert_eq!(judged(&fragments[1..], 40), Judgement::Undecided, "nothing ever begins");
    }

    #[test]
    fn a_server_that_pushes_has_the_lower_port() {
        let mut candidate = Candidate::default();
        for _ in 0..20 {
            see(&mut candidate.received, b"\x82\x08\0\x01\0\x03a/b\0");
        }
        assert_eq!(candidate.judge(true), Judgement::Undecided, "an MQTT client that subscribes");
        assert_eq!(candidate.judge(false), Judgement::WebSocket(false));
    }

    #[test]
    fn a_client_that_sends_is_recognised() {
        assert_eq!(judged(&[b"\x82\x81abcd!"], 3), Judgement::WebSocket(true));
    }

    #[test]
    fn records_behind_their_length_are_no_continuations() {
        assert_eq!(judged(&[b"\x00\x00\x00\x03abc", b"\x00\x00\x00\x04abcd"], 1000), Judgement::Undecided);
        assert_eq!(judged(&[b"\x00\x03abc"], 1000), Judgement::Undecided);
        assert_eq!(judged(&[&[0; 1000]], 1000), Judgement::Undecided);
    }

    #[test]
    fn one_message_ends_before_the_next_begins() {
        assert_eq!(judged(&[b"\x01\x02in"], 2 * usize::from(PATIENCE)), Judgement::Other);
    }
}
