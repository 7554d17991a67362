//! This process's own descriptor limit: a server or load generator that leaves it at the usual soft limit of 1,024
//! measures that limit and nothing else.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit on descriptors before and after [`raise`]. `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Soft limit found.
    pub before: Option<u64>,
    /// Soft limit now in force.
    pub now: Option<u64>,
}

impl Descriptors {
    /// The limits as they are.
    pub fn current() -> Self {
        let now = getrlimit(Resource::Nofile).current;
        Self { before: now, now }
    }

    /// Whether the soft limit was lifted.
    pub fn raised(&self) -> bool {
        self.before != self.now
    }

    /// Whether `count` descriptors fit besides those already open.
    ///
    /// # Errors
    /// When `/proc/self/fd` cannot be read.
    pub fn fit(&self, count: u64) -> io::Result<bool> {
        let Some(limit) = self.now else { return Ok(true) };
        Ok(open_descriptors()?.saturating_add(count) <= limit)
    }
}

/// Raises the soft limit to the hard one. Needs no privilege.
///
/// # Errors
/// When the kernel refuses (a seccomp filter may).
pub fn raise() -> io::Result<Descriptors> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(Descriptors { before: limit.current, now: limit.maximum })
}

/// Descriptors this process has open, without counting them one by one: Linux 6.2 and later say it as a size. `None`
/// where they do not.
pub(crate) fn open_now() -> Option<u64> {
    std::fs::metadata("/proc/self/fd").ok().map(|folder| folder.len()).filter(|open| *open > 0)
}

/// Descriptors this process has open now.
fn open_descriptors() -> io::Result<u64> {
    // The directory being read is itself one of the entries.
    Ok((std::fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1))
}
