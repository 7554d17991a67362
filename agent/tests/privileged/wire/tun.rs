//! A TUN device: a network interface whose wire is a descriptor. Without a virtio header nothing is offloaded, so a
//! packet read is a packet as it would be on a real wire, checksums and all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::Context as _;

use crate::runner::Skip;

const DEVICE: &str = "/dev/net/tun";

pub(crate) struct Tun(File);

impl Tun {
    /// Makes the device `name` in the network namespace of the calling thread.
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(|error| Skip(format!("{DEVICE}: {error}")))?;
        // SAFETY: an all-zero ifreq is a valid one: an empty name and no flags.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if made < 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("making the TUN device {name}"));
        }
        Ok(Self(file))
    }

    /// The next packet that the namespace sent; `None` where there is none at the moment.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match (&self.0).read(buffer) {
            Ok(length) => Ok(Some(&buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the namespace receive a packet, at once and on this thread.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.0).write_all(packet)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
