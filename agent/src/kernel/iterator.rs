//! BPF iterators by their two steps. aya makes a new link for every reading; here a link is made once and then opened in
//! as many network namespaces as there are, as often as wanted.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// `BPF_LINK_CREATE`, `BPF_ITER_CREATE` and `BPF_TRACE_ITER` of linux/bpf.h.
const LINK_CREATE: libc::c_int = 28;
const ITER_CREATE: libc::c_int = 33;
const TRACE_ITER: u32 = 28;

/// The first members of `union bpf_attr` for `BPF_LINK_CREATE`; the kernel takes the others for zero.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_ITER_CREATE`.
#[repr(C)]
struct IterCreate {
    link: u32,
    flags: u32,
}

/// An iterator program, ready to be read.
#[derive(Debug)]
pub(super) struct Iterator(OwnedFd);

impl Iterator {
    /// `program` is a loaded iterator program.
    pub(super) fn new(program: BorrowedFd<'_>) -> io::Result<Self> {
        let program = program.as_raw_fd() as u32;
        bpf(LINK_CREATE, &LinkCreate { program, target: 0, attach_type: TRACE_ITER, flags: 0 }).map(Self)
    }

    /// One pass, over the network namespace of the calling thread where the program is about sockets.
    pub(super) fn open(&self) -> io::Result<File> {
        let link = self.0.as_fd().as_raw_fd() as u32;
        bpf(ITER_CREATE, &IterCreate { link, flags: 0 }).map(File::from)
    }
}

/// bpf(2), for commands that return a descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the two callers pass what the command takes, plain integers of the size given; the kernel only reads them.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    match i32::try_from(descriptor) {
        // SAFETY: a descriptor that the kernel has just made for us alone.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
