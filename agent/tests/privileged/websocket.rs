//! Just enough of RFC 6455 to hold either end of a connection in this process, on a plain socket.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{bail, ensure};

use crate::process::SOON;

/// The key of the RFC's own example (section 1.3), so that no hash is needed.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Connects and sends the request; the answer is read by [`opened`].
pub(crate) fn request(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    ask(&mut stream, address)?;
    Ok(stream)
}

/// Sends the request on a connection that is open.
pub(crate) fn ask(stream: &mut TcpStream, host: SocketAddr) -> anyhow::Result<()> {
    Ok(stream.write_all(request_head("/", &host.to_string(), "").as_bytes())?)
}

/// Has a socket that is about to connect send its first bytes with the third packet of the TCP handshake.
pub(crate) fn defer(descriptor: &OwnedFd) -> anyhow::Result<()> {
    // SAFETY: an open socket, and an int for an option that takes one.
    let set = unsafe {
        let seconds: libc::c_int = 5;
        libc::setsockopt(
            descriptor.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    ensure!(set == 0, "TCP_DEFER_ACCEPT: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Reads the request and accepts it.
pub(crate) fn answer(stream: &mut TcpStream) -> anyhow::Result<()> {
    head(stream)?;
    Ok(stream.write_all(response().as_bytes())?)
}

/// The request itself. `fields` are further header fields, each with its line end.
pub(crate) fn request_head(target: &str, host: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}

/// Reads the server's answer.
pub(crate) fn opened(stream: &mut TcpStream) -> anyhow::Result<()> {
    let head = head(stream)?;
    ensure!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "no upgrade: {head}");
    Ok(())
}

/// Both ends of one connection.
pub(crate) fn pair(listener: &TcpListener) -> anyhow::Result<(TcpStream, TcpStream)> {
    let mut client = request(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(SOON))?;
    answer(&mut server)?;
    opened(&mut client)?;
    Ok((server, client))
}

/// The head with which a server accepts [`request`].
pub(crate) fn response() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
}

/// A client's binary frame. The masking key is zero, so the payload stands as it is.
pub(crate) fn binary(payload: &[u8]) -> Vec<u8> {
    frame(0x82, payload, Some([0; 4]))
}

/// A frame with this first byte (FIN, RSV1–3, opcode), masked where it is a client's.
pub(crate) fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = header(first, payload.len(), mask);
    let key = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Its header.
pub(crate) fn header(first: u8, length: usize, mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut header = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..126), _) => header.push(masked | length),
        (_, Ok(length)) => {
            header.push(masked | 126);
            header.extend(length.to_be_bytes());
        }
        _ => {
            header.push(masked | 127);
            header.extend((length as u64).to_be_bytes());
        }
    }
    header.extend(mask.into_iter().flatten());
    header
}

/// Sends a message of up to 125 bytes and waits for its echo.
pub(crate) fn echo(stream: &mut TcpStream, message: &[u8]) -> anyhow::Result<()> {
    stream.write_all(&binary(message))?;
    loop {
        let mut lead = [0; 2];
        stream.read_exact(&mut lead)?;
        let mut payload = vec![0; usize::from(lead[1])];
        stream.read_exact(&mut payload)?;
        match lead[0] & 15 {
            // The server's keepalive; this client does not answer.
            9 => continue,
            2 if payload == message => return Ok(()),
            opcode => bail!("opcode {opcode} with {} bytes instead of the echo", payload.len()),
        }
    }
}

/// Reads a message head to its empty line and no further.
pub(crate) fn head(stream: &mut TcpStream) -> anyhow::Result<String> {
    head_of(stream, 4096)
}

/// The same, of at most so many bytes.
pub(crate) fn head_of(stream: &mut TcpStream, most: usize) -> anyhow::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    // By the byte: what follows the head belongs to the frames.
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        ensure!(head.len() < most, "a head without end");
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
