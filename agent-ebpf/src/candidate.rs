//! Is this older connection a WebSocket?
//!
//! A connection whose handshake was not seen is judged by its frames, both directions together. Packets mostly begin where
//! a frame does, so a guess starts at a packet's first byte; from then on every frame must begin where the one before
//! ended, and what that says is the [`Evidence`]'s business.
//!
//! Protocols that are not random need more than numbers: an MQTT client that subscribes sends what reads as unmasked binary
//! frames, but its peer answers with what no WebSocket peer may send. So the two directions must agree: one masked,
//! one not (RFC 6455 section 5.1), and one direction alone convinces only while the other does not object.

use crate::evidence::Evidence;
use crate::frame::{self, Lead};
use crate::reorder::before;
use crate::tracker::Payload;
use crate::tracker::resync::is_plausible;

/// Points of both directions together that make a WebSocket, where both have some: two frames each in a conversation.
const ENOUGH: u8 = 6;
/// Points of a server's direction that do so alone. For a client's a proof of its boundary is enough, as nothing else
/// resembles masked frames.
const ENOUGH_UNMASKED: u8 = 15;
/// Packets that contradict the guess before the connection is left alone. Generous, because long messages that are under
/// way when the agent starts look like noise to their end, and where one follows another that end is hard to see.
pub const PATIENCE: u16 = 1 << 15;
/// Headers looked at in one packet.
pub const HEADERS: u32 = 32;
/// Packets that begin like a TLS record until the connection is taken for TLS.
const TLS_RECORDS: u8 = 3;

/// One direction of a candidate.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Side {
    /// Bytes that went by.
    pub passed: u64,
    /// End of what was seen: sequence number of the next new byte.
    pub seen: u32,
    /// Sequence number at which the next frame begins, if there is a guess.
    boundary: u32,
    /// What speaks for the guess.
    pub evidence: Evidence,
    /// Packets that contradicted a guess.
    contradictions: u16,
    /// Mask of the frames seen so far: 0 none seen, 1 unmasked, 2 masked.
    mask: u8,
    /// Packets in a row that began like a TLS record.
    records: u8,
    /// A packet was seen.
    begun: u8,
    /// Keeps the size a multiple of 8 without padding.
    reserved: [u8; 7],
}

/// A connection that may be a WebSocket, keyed by its socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Candidate {
    /// From the peer.
    pub received: Side,
    /// To the peer.
    pub sent: Side,
    /// Process that holds the socket, by the last sweep of iter/task_file; 0 unknown.
    pub pid: u32,
    /// Its descriptor there; meaningless where the process is unknown.
    pub fd: i32,
    /// 1 once a program has taken it upon itself to end this candidate: of two CPUs that decide at the same moment, one in
    /// each direction, one goes on. `bpf_sk_storage_delete` may tell both that they succeeded.
    pub claimed: u32,
    /// Directions in which a packet began like an HTTP request: 1 from the peer, 2 to the peer.
    pub requests: u32,
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
    /// Where the other direction stands: [`Side::seen`].
    pub heard: u32,
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
        if side.begun == 0 {
            side.seen = seq;
        } else if !before(side.seen, end) {
            return false;
        }
        side.passed += end.wrapping_sub(side.seen) as u64;
        side.seen = end;
        side.begun = 1;
        let begins = side.boundary == seq;
        side.evidence.packet(begins, self.heard, self.payload.now_ns());
        self.at = 0;
        if side.evidence.is_alive() && !before(side.boundary, seq) {
            self.at = side.boundary.wrapping_sub(seq);
            if self.at == self.len {
                side.evidence.aligned();
            }
            return self.at < self.len;
        }
        side.restart(true)
    }

    /// Looks at one header; returns whether another is to be looked at.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        let (side, at) = (&mut *self.side, self.at);
        let available = self.len - at;
        let wanted = if available < frame::MAX_HEADER as u32 { available } else { frame::MAX_HEADER as u32 };
        let mut header = [0u8; 16];
        if !self.payload.load(at, &mut header, wanted) {
            side.restart(false);
            return false;
        }
        if at == 0 {
            side.note_record(&header, self.len);
        }
        let lead = Lead::new(header[0], header[1]);
        let header_len = lead.header_len() as u32;
        if wanted < 2 || wanted < header_len {
            // A header that is cut: the next packet is a new chance.
            side.restart(false);
            return false;
        }
        let (seq, frame_len) = (self.seq.wrapping_add(at), header_len as u64 + frame::payload_len(&header));
        if !side.is_plausible(lead, &header) || !side.evidence.header(lead, &header, seq, frame_len) {
            side.contradictions = side.contradictions.saturating_add(1);
            side.restart(false);
            return false;
        }
        if frame_len == available as u64 {
            side.evidence.aligned();
        }
        side.mask = if lead.is_masked() { MASKED } else { UNMASKED };
        side.boundary = seq.wrapping_add(frame_len as u32);
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

    /// Forgets the guess. `begins`: another is about to be made at a packet's first byte.
    #[inline(always)]
    fn restart(&mut self, begins: bool) -> bool {
        self.evidence.restart(begins);
        self.mask = 0;
        begins
    }

    /// Whether a packet was seen.
    pub const fn begun(&self) -> bool {
        self.begun != 0
    }

    /// Bytes from what was seen to where the next frame begins by the guess, and what speaks for it; `None` where there is
    /// no guess.
    #[inline(always)]
    pub fn guess(&self) -> Option<(u32, &Evidence)> {
        if !self.evidence.is_alive() || before(self.boundary, self.seen) {
            None
        } else {
            Some((self.boundary.wrapping_sub(self.seen), &self.evidence))
        }
    }
}

impl Candidate {
    /// Whether neither direction has shown a frame that counts, so that another guess is as good.
    #[inline(always)]
    pub const fn is_open(&self) -> bool {
        self.received.evidence.points() == 0 && self.sent.evidence.points() == 0
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
        if received.mask != 0 && received.mask == sent.mask {
            return Judgement::Undecided;
        }
        let is_server = if received.mask != 0 { received.mask == MASKED } else { sent.mask == UNMASKED };
        let (client, server) = if is_server { (received, sent) } else { (sent, received) };
        let (masked, unmasked) = (client.evidence.points(), server.evidence.points());
        let together = masked > 0 && unmasked > 0 && masked.saturating_add(unmasked) >= ENOUGH;
        let by_client = client.evidence.is_proof(true) && server.contradictions == 0;
        // Frames without a mask alone must come from what looks like a server's port: an MQTT client that subscribes many
        // times before it is answered looks like a server in everything else.
        let has_servers_port = is_server == local_is_lower;
        let by_server = unmasked >= ENOUGH_UNMASKED && client.contradictions == 0 && has_servers_port;
        if together || by_client || by_server {
            return Judgement::WebSocket(is_server);
        }
        Judgement::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Packet<'a>(&'a [u8], u64);

    impl Payload for Packet<'_> {
        fn load(&self, offset: u32, to: &mut [u8; 16], len: u32) -> bool {
            let (offset, len) = (offset as usize, len as usize);
            let bytes = self.0.get(offset..offset + len);
            bytes.inspect(|bytes| to[..len].copy_from_slice(bytes)).is_some()
        }

        fn now_ns(&self) -> u64 {
            self.1
        }
    }

    /// Longer than a silence.
    const LATER: u64 = 2_000_000;

    fn see(side: &mut Side, heard: u32, packet: &[u8], now_ns: u64) {
        see_at(side, heard, side.seen, packet, now_ns);
    }

    fn see_at(side: &mut Side, heard: u32, seq: u32, packet: &[u8], now_ns: u64) {
        let len = packet.len() as u32;
        let mut observation = Observation { side, heard, payload: Packet(packet, now_ns), seq, len, at: 0 };
        if observation.begin() {
            for _ in 0..HEADERS {
                if !observation.step() {
                    break;
                }
            }
        }
    }

    /// What a candidate is after these packets from the peer, with a silence between them, and none to it.
    fn judged(packets: &[&[u8]], times: usize) -> Judgement {
        let mut candidate = Candidate::default();
        for (packet, number) in packets.iter().cycle().take(times).zip(1..) {
            see(&mut candidate.received, 0, packet, number * LATER);
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
        for number in 1..20 {
            see(&mut candidate.received, 0, b"\x82\x08\0\x01\0\x03a/b\0", number * LATER);
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

    #[test]
    fn a_conversation_is_recognised_after_two_turns_and_its_bytes_are_kept() {
        let mut candidate = Candidate::default();
        for _ in 0..2 {
            assert_eq!(candidate.judge(true), Judgement::Undecided);
            see(&mut candidate.received, candidate.sent.seen, b"\x82\x81abcd!", 1);
            see(&mut candidate.sent, candidate.received.seen, b"\x82\x01!", 1);
        }
        assert_eq!(candidate.judge(true), Judgement::WebSocket(true));
        assert_eq!((candidate.received.passed, candidate.sent.passed), (14, 6));
    }

    #[test]
    fn packets_that_come_twice_or_late_are_no_evidence() {
        let mut candidate = Candidate::default();
        for number in 1..100 {
            see_at(&mut candidate.received, 0, 50, b"\x82\x81abcd!", number * LATER);
        }
        assert_eq!((candidate.judge(true), candidate.received.passed), (Judgement::Undecided, 7));
        // Behind a hole, which is filled: the bytes are counted once.
        see_at(&mut candidate.received, 0, 64, b"\x82\x81abcd!", 100 * LATER);
        see_at(&mut candidate.received, 0, 57, b"\x82\x81abcd!", 101 * LATER);
        assert_eq!((candidate.judge(true), candidate.received.passed), (Judgement::Undecided, 21));
    }

    #[test]
    fn a_body_that_resembles_a_frame_does_not_hide_an_upgrade() {
        let mut candidate = Candidate::default();
        see(&mut candidate.sent, 0, b"\x82\x20 of a body that is cut", LATER);
        assert!(candidate.is_open());
    }
}
