//! A wire between two network namespaces that loses, repeats, reorders, delays and cuts anew what it carries, because
//! loopback never does. The kernel needs no more for it than TUN devices: the wire is a thread of the test.

mod forward;
mod namespace;
pub(crate) mod peers;
mod schedule;
mod segment;
mod stream;
mod tun;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use anyhow::{anyhow, ensure};

pub(crate) use self::forward::Tally;
use self::forward::{Control, MTU};
pub(crate) use self::namespace::Namespace;
pub(crate) use self::schedule::Schedule;
pub(crate) use self::segment::tcp_checksum;
use self::tun::Tun;

/// The device at either end.
const DEVICE: &str = "wire0";
/// Packets a device keeps for the wire: more than windows allow, so that nothing is lost but by the schedule.
const QUEUE: usize = 10_000;

/// Which protocol a wire speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

/// Two namespaces, connected.
pub(crate) struct Wire {
    /// The server's end by convention.
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
    /// Addresses of both.
    pub(crate) addresses: [IpAddr; 2],
    control: Arc<Mutex<Control>>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// A wire that does no harm yet.
    pub(crate) fn new(version: Version, seed: u64) -> anyhow::Result<Self> {
        // The range for benchmarks between networks (RFC 2544), and a unique local one.
        let (addresses, prefix) = match version {
            Version::V4 => (["198.18.0.1".parse()?, "198.18.0.2".parse()?], "24"),
            Version::V6 => (["fd00:18::1".parse()?, "fd00:18::2".parse()?], "64 nodad"),
        };
        let [near, far] = [Namespace::new()?, Namespace::new()?];
        let mut ends = Vec::new();
        for (namespace, address) in [(&near, addresses[0]), (&far, addresses[1])] {
            ends.push(namespace.enter(|| Tun::new(DEVICE))?);
            namespace.ip(&format!("link set {DEVICE} mtu {MTU} txqueuelen {QUEUE} up"))?;
            let address: IpAddr = address;
            namespace.ip(&format!("address add {address}/{prefix} dev {DEVICE}"))?;
        }
        let ends: [Tun; 2] = ends.try_into().map_err(|_| anyhow!("not two ends"))?;
        let control = Arc::new(Mutex::new(Control::default()));
        let shared = Arc::clone(&control);
        let thread = std::thread::spawn(move || forward::forward(&ends, seed, &shared));
        Ok(Self { near, far, addresses, control, thread: Some(thread) })
    }

    /// From now on.
    pub(crate) fn become_hostile(&self, schedule: Schedule) -> anyhow::Result<()> {
        self.control()?.schedule = schedule;
        Ok(())
    }

    /// What was done so far.
    pub(crate) fn tally(&self) -> anyhow::Result<Tally> {
        let control = self.control()?;
        ensure!(control.failure.is_none(), "the wire broke: {:?}", control.failure);
        Ok(control.tally)
    }

    /// Bounds what a receiver may be sent ahead of what it has: its buffer, which then does not grow. A window is less.
    pub(crate) fn bound_receive_buffers(&self, bytes: u32) -> anyhow::Result<()> {
        for namespace in [&self.near, &self.far] {
            namespace.sysctl("ipv4/tcp_rmem", &format!("4096 {bytes} {bytes}"))?;
        }
        Ok(())
    }

    fn control(&self) -> anyhow::Result<MutexGuard<'_, Control>> {
        self.control.lock().map_err(|_| anyhow!("the wire's thread panicked"))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Ok(mut control) = self.control() {
            control.stop = true;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
