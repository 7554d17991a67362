//! Interfaces: counters from /proc/net/dev, speed from the driver or from `--nic-speed`.
//!
//! The driver's speed is read from /sys/class/net/NAME/speed. ethtool would add nothing: both call the same function
//! (`speed_show` in net/core/net-sysfs.c and `ethtool_get_link_ksettings` in net/ethtool/ioctl.c call the driver's
//! `get_link_ksettings` through `__ethtool_get_link_ksettings`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use super::text;
use crate::cli::{Rate, UnitError, parse_count, parse_rate};
use crate::model::{Interface, LinkSpeed};

/// `ARPHRD_ETHER` (linux/if_arp.h).
const ETHERNET: u64 = 1;
/// An Ethernet header, which drivers count as part of a packet.
const HEADER: u64 = 14;
/// What an Ethernet link carries for each packet: header 14, checksum 4, preamble 8, gap 12 (IEEE 802.3).
const FRAMING: u64 = 38;
/// Devices stand on devices, but not so many.
const DEEPEST: usize = 8;

/// `--nic-speed [NAME=]RATE`: what an interface can really carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSpeed {
    /// Which interface; `None` for all.
    pub interface: Option<String>,
    /// Bits per second, more than 0.
    pub bits_per_second: u64,
}

/// `--nic-pps [NAME=]N`: how many packets an interface can carry in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicPackets {
    /// Which interface; `None` for all.
    pub interface: Option<String>,
    /// Packets per second, more than 0.
    pub packets_per_second: u64,
}

/// Why a `--nic-speed` or `--nic-pps` makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NicError {
    /// The number.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// No link is that slow.
    #[error("a link that carries 0 a second carries nothing")]
    Zero,
}

impl FromStr for NicSpeed {
    type Err = NicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (interface, rate) = named(text);
        match parse_rate(rate)? {
            Rate(0) => Err(NicError::Zero),
            Rate(bits_per_second) => Ok(NicSpeed { interface, bits_per_second }),
        }
    }
}

impl FromStr for NicPackets {
    type Err = NicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (interface, count) = named(text);
        match parse_count(count)? {
            0 => Err(NicError::Zero),
            packets_per_second => Ok(NicPackets { interface, packets_per_second }),
        }
    }
}

/// `[NAME=]VALUE`
fn named(text: &str) -> (Option<String>, &str) {
    match text.split_once('=') {
        Some((name, value)) => (Some(name.to_owned()), value),
        None => (None, text),
    }
}

/// What was given for the interface by name, or else for all.
fn given<'a, T>(all: &'a [T], interface: &str, of: impl Fn(&T) -> Option<&str>) -> Option<&'a T> {
    let general = || all.iter().find(|one| of(one).is_none());
    all.iter().find(|one| of(one) == Some(interface)).or_else(general)
}

/// What does not change in an interface's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Nature {
    index: u32,
    ethernet: bool,
    /// Whether there is a device behind it, its own or those it stands on.
    real: bool,
}

/// Reads interfaces, and remembers what they are.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    speeds: Vec<NicSpeed>,
    packets: Vec<NicPackets>,
    natures: HashMap<String, Nature>,
}

impl Interfaces {
    pub(super) fn new(speeds: Vec<NicSpeed>, packets: Vec<NicPackets>) -> Self {
        Self { speeds, packets, natures: HashMap::new() }
    }

    pub(super) fn read(&mut self) -> Result<Vec<Interface>, String> {
        let devices = procfs::net::dev_status().map_err(|error| error.to_string())?;
        self.natures.retain(|name, _| devices.contains_key(name));
        let mut interfaces = Vec::new();
        for device in devices.into_values() {
            let Some(nature) = self.nature(&device.name) else {
                continue;
            };
            let packets = given(&self.packets, &device.name, |one| one.interface.as_deref());
            interfaces.push(Interface {
                index: nature.index,
                received_bytes: device.recv_bytes,
                transmitted_bytes: device.sent_bytes,
                received_packets: device.recv_packets,
                transmitted_packets: device.sent_packets,
                framing_bytes: nature.framing(),
                counted_bytes: nature.counted(),
                speed: speed(&device.name, nature, &self.speeds),
                packets_per_second: packets.map(|packets| packets.packets_per_second),
                name: device.name,
            });
        }
        interfaces.sort_by_key(|interface| interface.index);
        Ok(interfaces)
    }

    /// A name may come back as another interface, which has another index then.
    fn nature(&mut self, name: &str) -> Option<Nature> {
        let index = u32::try_from(text::value(folder(name).join("ifindex"))?).ok()?;
        if let Some(nature) = self.natures.get(name).filter(|nature| nature.index == index) {
            return Some(*nature);
        }
        let kind = text::value(folder(name).join("type"));
        let nature =
            Nature { index, ethernet: kind == Some(ETHERNET), real: is_real(&folder(name), DEEPEST) };
        self.natures.insert(name.to_owned(), nature);
        Some(nature)
    }
}

impl Nature {
    /// A virtual Ethernet moves packets with their headers, and nothing that only a wire has. Loopback takes the header off
    /// before it counts, and other links are taken for bare IP.
    const fn framing(self) -> u64 {
        match (self.ethernet, self.real) {
            (true, true) => FRAMING,
            (true, false) => HEADER,
            (false, _) => 0,
        }
    }

    const fn counted(self) -> u64 {
        if self.ethernet { HEADER } else { 0 }
    }
}

/// Whether the interface is a device's, or stands on others that all are: a bond, a VLAN.
fn is_real(folder: &Path, depth: usize) -> bool {
    if folder.join("device").exists() {
        return true;
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_lower = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("lower_"))
    };
    let lower: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_lower).collect();
    depth > 0 && !lower.is_empty() && lower.iter().all(|lower| is_real(lower, depth - 1))
}

fn speed(name: &str, nature: Nature, speeds: &[NicSpeed]) -> LinkSpeed {
    if let Some(speed) = given(speeds, name, |speed| speed.interface.as_deref()) {
        return LinkSpeed::Known(speed.bits_per_second, "the given --nic-speed");
    }
    // Virtual devices report none, or one that is made up and holds nothing back: veth says 10 Gbit/s, tun 10 Mbit/s.
    if !nature.real {
        let why = "has no device behind it and so no speed of its own";
        return LinkSpeed::Unknown(format!("{name} {why}; give --nic-speed {name}=RATE"));
    }
    // A driver that does not know answers EINVAL or -1.
    match text::value(folder(name).join("speed")).filter(|mbit| *mbit > 0) {
        Some(mbit) => LinkSpeed::Known(mbit * 1_000_000, "the speed its driver reports"),
        None => LinkSpeed::Unknown(format!("{name} reports no speed; give --nic-speed {name}=RATE")),
    }
}

fn folder(interface: &str) -> PathBuf {
    Path::new("/sys/class/net").join(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATURE: Nature = Nature { index: 7, ethernet: true, real: true };

    #[test]
    fn a_named_speed_beats_the_general_one() {
        let speeds: Vec<NicSpeed> = ["10G", "lo=1M"].map(|text| text.parse().expect("valid")).into();
        assert_eq!(speed("lo", NATURE, &speeds), LinkSpeed::Known(1_000_000, "the given --nic-speed"));
        assert_eq!(
            speed("other0", NATURE, &speeds),
            LinkSpeed::Known(10_000_000_000, "the given --nic-speed")
        );
        assert_eq!("0G".parse::<NicSpeed>(), Err(NicError::Zero));
        assert!("fast".parse::<NicSpeed>().is_err());
    }

    #[test]
    fn a_packet_rate_is_a_number() {
        let packets: NicPackets = "eth0=1.5M".parse().expect("valid");
        assert_eq!((packets.interface.as_deref(), packets.packets_per_second), (Some("eth0"), 1_500_000));
        assert_eq!("0".parse::<NicPackets>(), Err(NicError::Zero));
        assert!("eth0=10Gbit".parse::<NicPackets>().is_err());
    }

    #[test]
    fn loopback_has_no_speed_and_says_so() {
        let interfaces = Interfaces::default().read().expect("readable");
        let lo = interfaces.iter().find(|interface| interface.name == "lo").expect("loopback");
        assert!(matches!(&lo.speed, LinkSpeed::Unknown(why) if why.contains("--nic-speed lo=")));
        assert_eq!((lo.framing_bytes, lo.counted_bytes, lo.packets_per_second), (0, 0, None));
    }

    #[test]
    fn a_virtual_interface_is_as_real_as_what_it_stands_on() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |path: &str| folder.path().join(path);
        for path in
            ["eth0/device", "veth0", "bond0/lower_eth0/device", "br0/lower_eth0/device", "br0/lower_veth0"]
        {
            std::fs::create_dir_all(at(path)).expect("created");
        }
        let real: Vec<bool> =
            ["eth0", "veth0", "bond0", "br0"].map(|name| is_real(&at(name), DEEPEST)).into();
        assert_eq!(real, [true, false, true, false]);
    }

    #[test]
    fn framing_is_that_of_the_link() {
        let framing = |ethernet, real| {
            let nature = Nature { index: 1, ethernet, real };
            (nature.framing(), nature.counted())
        };
        assert_eq!(framing(true, true), (38, 14), "a network card");
        assert_eq!(framing(true, false), (14, 14), "veth");
        assert_eq!(framing(false, false), (0, 0), "loopback, tun");
    }
}
