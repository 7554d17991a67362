//! Listening TCP sockets of the agent's network namespace and what waits on them, from the kernel's sock_diag(7) (what
//! `ss -ltn` shows). /proc/net/tcp has how many wait, and not how many may.

use std::io;
use std::time::Duration;

use rustix::net::netlink::SOCK_DIAG;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::model::Listening;

/// `SOCK_DIAG_BY_FAMILY` and `INET_DIAG_SKMEMINFO` (linux/sock_diag.h, linux/inet_diag.h).
const BY_FAMILY: u16 = 20;
const SKMEMINFO: u16 = 7;
/// `NLMSG_ERROR` and `NLMSG_DONE`; `NLM_F_REQUEST | NLM_F_DUMP` (linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST_DUMP: u16 = 0x301;
/// The state of a socket that listens (`TCP_LISTEN`).
const LISTEN: u8 = 10;
/// Sizes of `struct nlmsghdr`, `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const HEADER: usize = 16;
const QUERY: usize = 56;
const MESSAGE: usize = 72;
/// Where `SK_MEMINFO_DROPS` is among the words of `INET_DIAG_SKMEMINFO`.
const DROPS: usize = 8;
/// The kernel answers while it is asked: this is for one that does not.
const PATIENCE: Duration = Duration::from_millis(200);

/// All of them, both address families.
pub(super) fn read() -> io::Result<Vec<Listening>> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    let mut all = Vec::new();
    // A dump answers in pieces of at most 32 KiB (`netlink_dump`).
    let mut buffer = vec![0; 32 << 10];
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        send(&socket, &query(family.as_raw() as u8), SendFlags::empty())?;
        loop {
            let (read, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
            if take(&buffer[..read], &mut all)? {
                break;
            }
        }
    }
    Ok(all)
}

/// Asks for sockets of TCP that listen, with their memory, which holds the count of what was dropped.
fn query(family: u8) -> [u8; HEADER + QUERY] {
    let mut query = [0; HEADER + QUERY];
    query[0..4].copy_from_slice(&((HEADER + QUERY) as u32).to_ne_bytes());
    query[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    query[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    query[HEADER] = family;
    query[HEADER + 1] = libc::IPPROTO_TCP as u8;
    query[HEADER + 2] = 1 << (SKMEMINFO - 1);
    query[HEADER + 4..HEADER + 8].copy_from_slice(&(1u32 << LISTEN).to_ne_bytes());
    query
}

/// Takes what one piece of the answer tells; returns whether it was the last.
fn take(mut bytes: &[u8], all: &mut Vec<Listening>) -> io::Result<bool> {
    while let Some((length, kind)) = word(bytes, 0).zip(half(bytes, 4)) {
        let message = bytes.get(HEADER..length as usize).unwrap_or_default();
        match kind {
            DONE => return Ok(true),
            ERROR => {
                return Err(io::Error::from_raw_os_error(
                    word(message, 0).map_or(0, |code| (code as i32).wrapping_neg()),
                ));
            }
            BY_FAMILY => all.extend(parse(message)),
            _ => {}
        }
        bytes = bytes.get(aligned(length as usize).max(HEADER)..).unwrap_or_default();
    }
    Ok(false)
}

/// A `struct inet_diag_msg` and the attributes behind it.
fn parse(message: &[u8]) -> Option<Listening> {
    let attributes = message.get(MESSAGE..)?;
    Some(Listening {
        port: u16::from_be_bytes([message[4], message[5]]),
        inode: word(message, 68)?,
        waiting: word(message, 56)?.into(),
        backlog: word(message, 60)?.into(),
        dropped: attribute(attributes, SKMEMINFO).and_then(|memory| word(memory, 4 * DROPS)).unwrap_or(0),
    })
}

/// `struct rtattr`: length, kind, content.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
        if kind == wanted {
            return bytes.get(4..length);
        }
        bytes = bytes.get(aligned(length).max(4)..)?;
    }
}

/// Messages and attributes begin at multiples of four.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_waits_on_a_listener_is_told() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Where IPv6 is switched off there is nothing to see.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let address = listener.local_addr().expect("bound");
            let waiting: Vec<TcpStream> =
                (0..3).map(|_| TcpStream::connect(address).expect("connected")).collect();
            let all = read().expect("readable");
            let found: Vec<&Listening> = all.iter().filter(|one| one.port == address.port()).collect();
            assert_eq!(found.len(), 1, "{all:?}");
            assert_eq!((found[0].waiting, found[0].dropped), (waiting.len() as u64, 0));
            // The standard library asks for 128, and net.core.somaxconn may be lower or higher.
            assert!(found[0].backlog > 0 && found[0].inode > 0, "{found:?}");
        }
    }

    #[test]
    fn a_mangled_answer_ends_and_never_panics() {
        let mut answer = query(2).to_vec();
        answer.extend([0xff; 40]);
        for length in 0..answer.len() {
            for lie in [0u32, 1, 15, 17, 0xffff_ffff] {
                answer[0..4].copy_from_slice(&lie.to_ne_bytes());
                let _ = take(&answer[..length], &mut Vec::new());
            }
        }
        assert_eq!(attribute(&[0; 16], SKMEMINFO), None);
    }
}
