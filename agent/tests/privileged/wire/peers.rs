//! Both ends of WebSockets on a wire, in this process, and what they truly sent.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use fastrand::Rng;
use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use super::Namespace;
use crate::payload::Fill;
use crate::traffic::{self, Counts};
use crate::websocket;

/// A hostile wire makes TCP wait for seconds at a time.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one end says: the stream behind its handshake.
pub(crate) struct Script {
    pub(crate) bytes: Vec<u8>,
    pub(crate) counts: Counts,
    /// Lengths of the writes that it goes out in.
    writes: Vec<usize>,
}

/// How many frames a script has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) small: usize,
    /// Several segments each.
    pub(crate) large: usize,
    /// What those are made of, if not of noise.
    pub(crate) fill: Option<Fill>,
}

impl Script {
    /// Frames of every kind, in any order, at last a close.
    fn new(size: Size, masked: bool, random: &mut Rng) -> anyhow::Result<Self> {
        let mut script = Self { bytes: Vec::new(), counts: traffic::none(), writes: Vec::new() };
        let mut kinds: Vec<bool> =
            std::iter::repeat_n(false, size.small).chain([true].repeat(size.large)).collect();
        random.shuffle(&mut kinds);
        for large in kinds {
            // A ping may stand between the fragments of a message, a new message may not.
            let firsts: &[u8] = match random.u32(0..10) {
                _ if large => &[0x82],
                0 => &[0x89],
                1 => &[0x8a],
                2 => &[0x01, 0x89, 0x80],
                3..6 => &[0x82],
                _ => &[0x81],
            };
            for first in firsts {
                let length = if large { random.usize(5_000..70_000) } else { small(*first, random) };
                script.push(*first, masked, length, size.fill.filter(|_| large), random)?;
            }
        }
        script.push(0x88, masked, 2, None, random)?;
        Ok(script)
    }

    fn push(
        &mut self,
        first: u8,
        masked: bool,
        length: usize,
        fill: Option<Fill>,
        random: &mut Rng,
    ) -> anyhow::Result<()> {
        let payload: Vec<u8> = match (first, fill) {
            (0x88, _) => 1000u16.to_be_bytes().to_vec(),
            (_, Some(fill)) => fill(random, length),
            _ => std::iter::repeat_with(|| random.u8(..)).take(length).collect(),
        };
        let key = masked.then(|| random.u32(..).to_ne_bytes());
        let frame = websocket::frame(first, &payload, key);
        traffic::count(&mut self.counts, first, payload.len())?;
        // Most frames go out by themselves, some along with the one before.
        match self.writes.last_mut() {
            Some(last) if random.u32(0..4) == 0 => *last += frame.len(),
            _ => self.writes.push(frame.len()),
        }
        self.bytes.extend(frame);
        Ok(())
    }

    fn write(&self, stream: &TcpStream) -> anyhow::Result<()> {
        let mut rest = &self.bytes[..];
        for length in &self.writes {
            let (next, after) = rest.split_at(*length);
            (&mut &*stream).write_all(next).context("writing frames")?;
            rest = after;
        }
        Ok(())
    }

    /// Reads all of it. What TCP delivers is what was sent, or the wire itself is broken.
    fn read(&self, stream: &TcpStream, stall: Duration) -> anyhow::Result<()> {
        std::thread::sleep(stall);
        let mut received = vec![0; self.bytes.len()];
        (&mut &*stream).read_exact(&mut received).context("reading frames")?;
        ensure!(received == self.bytes, "the wire delivered other bytes than were sent");
        Ok(())
    }
}

fn small(first: u8, random: &mut Rng) -> usize {
    let longest = if first & 8 == 0 && random.u32(0..8) == 0 { 2000 } else { 125 };
    random.usize(0..=longest)
}

/// An open WebSocket.
pub(crate) struct Pair {
    server: TcpStream,
    client: TcpStream,
}

/// What a WebSocket carried, by the role of the sender.
pub(crate) struct Truth {
    pub(crate) server: SocketAddr,
    pub(crate) client: SocketAddr,
    pub(crate) from_server: Script,
    pub(crate) from_client: Script,
}

impl Pair {
    /// Upgrades a TCP connection, whichever end of it connected.
    pub(crate) fn upgrade(mut server: TcpStream, mut client: TcpStream) -> anyhow::Result<Self> {
        for stream in [&server, &client] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
        }
        let host = server.local_addr()?;
        websocket::ask(&mut client, host)?;
        websocket::answer(&mut server)?;
        websocket::opened(&mut client)?;
        Ok(Self { server, client })
    }

    /// The server's end and the client's.
    pub(crate) fn into_streams(self) -> (TcpStream, TcpStream) {
        (self.server, self.client)
    }

    /// Both ends say all they have to say at the same time, read what the other says, and close. Readers begin after
    /// `stall`.
    pub(crate) fn exchange(&self, size: Size, stall: Duration, seed: u64) -> anyhow::Result<Truth> {
        let mut random = Rng::with_seed(seed);
        let truth = Truth {
            server: self.server.local_addr()?,
            client: self.client.local_addr()?,
            from_server: Script::new(size, false, &mut random)?,
            from_client: Script::new(size, true, &mut random)?,
        };
        std::thread::scope(|scope| {
            let threads = [
                scope.spawn(|| truth.from_server.write(&self.server)),
                scope.spawn(|| truth.from_client.write(&self.client)),
                scope.spawn(|| truth.from_server.read(&self.client, stall)),
                scope.spawn(|| truth.from_client.read(&self.server, stall)),
            ];
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a peer panicked"))??;
            }
            anyhow::Ok(())
        })?;
        Ok(truth)
    }
}

/// A listening socket in the namespace.
pub(crate) fn listen(namespace: &Namespace, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = namespace.enter(|| Ok(TcpListener::bind(address)?))?;
    // For accepting: a wire that broke must not hang the test.
    set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE))?;
    Ok(listener)
}

/// Connects from `from` in the namespace; `first` is the sequence number of the first byte.
pub(crate) fn dial(
    namespace: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    first: Option<u32>,
) -> anyhow::Result<TcpStream> {
    namespace.enter(|| {
        let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket(family, SocketType::STREAM, None)?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        if let Some(first) = first {
            begin_at(&socket, first).context("choosing a sequence number")?;
        }
        // Several connections may begin at one port. Not earlier: leaving repair mode turns it off.
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &from).with_context(|| format!("binding to {from}"))?;
        connect(&socket, &to).with_context(|| format!("connecting to {to}"))?;
        Ok(TcpStream::from(socket))
    })
}

/// Has a socket that is not connected yet begin its stream at a sequence number.
fn begin_at(socket: &OwnedFd, first: u32) -> std::io::Result<()> {
    // TCP_SEND_QUEUE and TCP_NO_QUEUE of linux/tcp.h.
    const SEND_QUEUE: u32 = 2;
    const NO_QUEUE: u32 = 0;
    // The SYN takes the number before the first byte's.
    let syn = first.wrapping_sub(1);
    for (option, value) in [
        (libc::TCP_REPAIR, 1),
        (libc::TCP_REPAIR_QUEUE, SEND_QUEUE),
        (libc::TCP_QUEUE_SEQ, syn),
        (libc::TCP_REPAIR_QUEUE, NO_QUEUE),
        (libc::TCP_REPAIR, 0),
    ] {
        // SAFETY: the option's value is an integer of 4 bytes that outlives the call.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                option,
                (&raw const value).cast(),
                size_of::<u32>() as libc::socklen_t,
            )
        };
        if set < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
