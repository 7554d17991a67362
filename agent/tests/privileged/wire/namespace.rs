//! A network namespace that lives as long as somebody holds a descriptor of it: nothing has a name, so nothing is left
//! behind however the test ends.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::{Context as _, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::process::{self, SOON};
use crate::runner::Skip;

pub(crate) struct Namespace(File);

impl Namespace {
    /// A fresh one, its loopback up.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let made = std::thread::spawn(|| -> anyhow::Result<File> {
            // SAFETY: no memory and no descriptor is unshared, only this thread's view of the network, and it ends here.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|error| Skip(format!("network namespaces cannot be made here: {error}")))?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let namespace = Self(made.join().map_err(|_| anyhow!("the thread panicked"))??);
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// What listeners of this namespace are told apart by.
    pub(crate) fn inode(&self) -> anyhow::Result<u32> {
        Ok(u32::try_from(self.0.metadata()?.ino())?)
    }

    /// Runs `body` on a thread in the namespace. Sockets and processes made there stay there.
    pub(crate) fn enter<T: Send>(
        &self,
        body: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("entering the test's network namespace")?;
                body()
            });
            inside.join().map_err(|_| anyhow!("a panic in the network namespace"))?
        })
    }

    /// `ip ARGUMENTS`.
    pub(crate) fn ip(&self, arguments: &str) -> anyhow::Result<()> {
        let ended =
            self.enter(|| process::run(Command::new("ip").args(arguments.split_whitespace()), SOON))?;
        ensure!(ended.status.success(), "ip {arguments}: {}", ended.stderr.join(" "));
        Ok(())
    }

    /// Sets what /proc/sys/net has of the namespace.
    pub(crate) fn sysctl(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let path = format!("/proc/sys/net/{name}");
        self.enter(|| std::fs::write(&path, value).with_context(|| format!("writing {value} to {path}")))
    }
}
