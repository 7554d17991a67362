//! Sockets that listen: made here, or handed over by whoever started this process.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use agent::cli::{Exit, Failure};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};

/// Pending connections the kernel may keep; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening TCP socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    address: SocketAddr,
    secure: bool,
}

impl Listener {
    /// Listens on `address`; port 0 takes any free one. With `share`, other processes that ask for the same may listen
    /// there too (SO_REUSEPORT), and the kernel spreads connections over them.
    ///
    /// # Errors
    /// Those of bind(2): the address is in use, is not ours, or needs privilege.
    pub fn bind(address: SocketAddr, share: bool) -> io::Result<Self> {
        let socket = bound(address, share)?;
        listen(&socket, BACKLOG)?;
        Self::check(socket)
    }

    /// Whether nobody listens on `address`, for those who are about to share it and mean to be the only ones.
    ///
    /// # Errors
    /// Those of bind(2).
    pub fn probe(address: SocketAddr) -> io::Result<()> {
        bound(address, false).map(drop)
    }

    /// Takes over descriptors `numbers`, which were open when this process started.
    ///
    /// # Safety
    /// Nothing else in this process uses or closes those that are open.
    ///
    /// # Errors
    /// When one is not a TCP socket that listens.
    pub unsafe fn adopt(numbers: impl IntoIterator<Item = RawFd>) -> io::Result<Vec<Self>> {
        let one = |number| {
            // Its own children have no business with it.
            // SAFETY: fcntl takes any number and says so if it is not open.
            if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: it is open, and the caller says that nobody else uses it.
            Self::check(unsafe { OwnedFd::from_raw_fd(number) })
        };
        let said = |number| move |error| io::Error::other(format!("descriptor {number}: {error}"));
        numbers.into_iter().map(|number| one(number).map_err(said(number))).collect()
    }

    fn check(socket: OwnedFd) -> io::Result<Self> {
        let wrong = || io::Error::other("is not a TCP socket that listens");
        if sockopt::socket_type(&socket).map_err(|_| wrong())? != SocketType::STREAM
            || !sockopt::socket_acceptconn(&socket)?
        {
            return Err(wrong());
        }
        let address = SocketAddr::try_from(getsockname(&socket)?).map_err(|_| wrong())?;
        Ok(Self { socket, address, secure: false })
    }

    /// What ends the process when `address` cannot be had, with the exit code for `error`.
    pub fn failure(address: SocketAddr, secure: bool, error: &io::Error) -> Failure {
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied => Exit::NoPermission,
            _ => Exit::Unavailable,
        };
        Failure::new(exit, format!("cannot listen on {}://{address}: {error}", scheme(secure)))
    }

    /// The same, with TLS on what is accepted or without it.
    pub fn secured(self, secure: bool) -> Self {
        Self { secure, ..self }
    }

    /// Whether what is accepted speaks TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Where it listens, with the port the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets a process started from now on have it, or not.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn hand_down(&self, allow: bool) -> io::Result<()> {
        let flags = if allow { FdFlags::empty() } else { FdFlags::CLOEXEC };
        Ok(fcntl_setfd(&self.socket, flags)?)
    }

    /// The socket, ready for a runtime.
    pub(super) fn into_std(self) -> io::Result<TcpListener> {
        let listener = TcpListener::from(self.socket);
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// As it is written on the command line and in what the server says of itself.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", scheme(self.secure), self.address)
    }
}

fn scheme(secure: bool) -> &'static str {
    if secure { "wss" } else { "ws" }
}

fn bound(address: SocketAddr, share: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // Lets a restarted server bind while old connections are in TIME_WAIT; a live listener still wins.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if share {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    fn local() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn those_who_share_may_listen_beside_each_other_and_nobody_else() {
        let first = Listener::bind(local(), true).unwrap();
        assert_ne!(first.address().port(), 0);
        let second = Listener::bind(first.address(), true).unwrap();
        assert_eq!(second.address(), first.address());
        for error in [
            Listener::bind(first.address(), false).unwrap_err(),
            Listener::probe(first.address()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn only_a_tcp_socket_that_listens_is_adopted() {
        let listening = Listener::bind(local(), false).unwrap();
        let address = listening.address();
        // SAFETY: the numbers are this test's own.
        let adopted = unsafe { Listener::adopt([listening.socket.into_raw_fd()]) }.unwrap();
        assert_eq!(adopted[0].address(), address);
        let others: [OwnedFd; 3] = [
            std::fs::File::open("/dev/null").unwrap().into(),
            std::net::UdpSocket::bind(local()).unwrap().into(),
            bound(local(), false).unwrap(),
        ];
        for other in others {
            // SAFETY: as above.
            let error = unsafe { Listener::adopt([other.into_raw_fd()]) }.unwrap_err();
            assert!(error.to_string().starts_with("descriptor "), "{error}");
        }
        // SAFETY: no process has that many.
        assert!(unsafe { Listener::adopt([i32::MAX]) }.is_err());
    }
}
