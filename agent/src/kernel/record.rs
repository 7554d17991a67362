//! Records as bytes from the kernel.

use agent_ebpf::abi::{
    Connection, ListenerKey, ListenerTotals, Opened, RESPONSE_BYTES, Refusal, SocketHeader, Task, Unjudged,
    event,
};

/// A tracked socket as a sweep or a close event shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// Endpoints and memory.
    pub header: SocketHeader,
    /// Counts.
    pub connection: Connection,
}

/// A connection older than the agent that is not judged yet, as a sweep shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CandidateSocket {
    /// Endpoints and memory.
    pub header: SocketHeader,
    /// The rest of what is known.
    pub unjudged: Unjudged,
}

/// A record of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub(super) enum SweepRecord {
    Tracked(Socket),
    Candidate(CandidateSocket),
}

/// A connection that is tracked from now on, with the heads of its handshake as far as they were kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// Who, and when.
    pub opened: Opened,
    /// The request head; empty where it was not seen, and cut where it is long.
    pub request: Vec<u8>,
    /// The response head; empty where it came in pieces.
    pub response: Vec<u8>,
}

impl Handshake {
    /// Reads a ring buffer entry.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (opened, rest) = split::<Opened>(bytes)?;
        let (response, request) = rest.split_at_checked(RESPONSE_BYTES)?;
        Some(Self {
            opened,
            request: request.get(..usize::from(opened.request_len))?.to_vec(),
            response: response.get(..usize::from(opened.response_len))?.to_vec(),
        })
    }
}

/// Types that may be read from kernel bytes.
///
/// # Safety
/// `repr(C)`, made of integers only, without padding: any bytes of the right number are a value.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: the ABI module asserts at compile time that these have no padding; all fields are integers.
unsafe impl Plain for SocketHeader {}
// SAFETY: as above.
unsafe impl Plain for Connection {}
// SAFETY: as above.
unsafe impl Plain for Opened {}
// SAFETY: as above.
unsafe impl Plain for Task {}
// SAFETY: as above.
unsafe impl Plain for Unjudged {}
// SAFETY: as above.
unsafe impl Plain for u64 {}

/// Reads a `T` from the front of `bytes` and returns it with what follows; `None` where there are too few.
pub(super) fn split<T: Plain>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (front, rest) = bytes.split_at_checked(size_of::<T>())?;
    // SAFETY: `front` has exactly the size of a `T`, and `Plain` says any bytes are one; the read is unaligned.
    Some((unsafe { front.as_ptr().cast::<T>().read_unaligned() }, rest))
}

impl Socket {
    /// Reads one from the front of `bytes`.
    pub(super) fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = split(bytes)?;
        let (connection, rest) = split(rest)?;
        Some((Socket { header, connection }, rest))
    }
}

impl SweepRecord {
    /// Reads one from the front of `bytes`.
    pub(super) fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = split::<SocketHeader>(bytes)?;
        if header.kind == event::CANDIDATE {
            let (unjudged, rest) = split(rest)?;
            return Some((Self::Candidate(CandidateSocket { header, unjudged }), rest));
        }
        let (connection, rest) = split(rest)?;
        Some((Self::Tracked(Socket { header, connection }), rest))
    }
}

/// Gives a foreign type aya's marker for map keys and values.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub(super) struct MapValue<T>(pub(super) T);

// SAFETY: plain integers without padding, see `Plain`.
unsafe impl aya::Pod for MapValue<ListenerTotals> {}
// SAFETY: as above.
unsafe impl aya::Pod for MapValue<ListenerKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for MapValue<Refusal> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split_off_whole_or_not_at_all() {
        let size = size_of::<SocketHeader>() + size_of::<Connection>();
        let bytes: Vec<u8> = (0..size as u32 + 5).map(|i| i as u8).collect();
        let (socket, rest) = Socket::split(&bytes).expect("whole");
        assert_eq!(rest.len(), 5);
        assert_eq!(socket.header.kind, u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7]));
        assert!(Socket::split(&bytes[..size - 1]).is_none());
    }

    #[test]
    fn a_handshake_is_as_long_as_its_heads() {
        let mut bytes = vec![0; size_of::<Opened>() + RESPONSE_BYTES];
        let request = size_of::<Opened>() - 4;
        let response = request - 2;
        bytes[request..request + 2].copy_from_slice(&3u16.to_ne_bytes());
        bytes[response..response + 2].copy_from_slice(&2u16.to_ne_bytes());
        assert!(Handshake::parse(&bytes).is_none(), "the request is missing");
        bytes.extend(b"GET");
        let handshake = Handshake::parse(&bytes).expect("whole");
        assert_eq!((handshake.request.as_slice(), handshake.response.len()), (b"GET".as_slice(), 2));
    }
}
