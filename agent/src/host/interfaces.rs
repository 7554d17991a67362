//! Interfaces: counters from /proc/net/dev, speed from the driver or from `--nic-speed`.

use std::str::FromStr;

use thiserror::Error;

use crate::cli::{Rate, UnitError, parse_rate};
use crate::model::{Interface, LinkSpeed};

/// `--nic-speed [NAME=]RATE`: what an interface can really carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSpeed {
    /// Which interface; `None` for all.
    pub interface: Option<String>,
    /// Bits per second, more than 0.
    pub bits_per_second: u64,
}

/// Why a `--nic-speed` makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NicSpeedError {
    /// The rate.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// No link is that slow.
    #[error("a link speed of 0 carries nothing")]
    Zero,
}

impl FromStr for NicSpeed {
    type Err = NicSpeedError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (interface, rate) = match text.split_once('=') {
            Some((name, rate)) => (Some(name.to_owned()), rate),
            None => (None, text),
        };
        match parse_rate(rate)? {
            Rate(0) => Err(NicSpeedError::Zero),
            Rate(bits_per_second) => Ok(NicSpeed { interface, bits_per_second }),
        }
    }
}

pub(super) fn read(speeds: &[NicSpeed]) -> Result<Vec<Interface>, String> {
    let devices = procfs::net::dev_status().map_err(|error| error.to_string())?;
    let mut interfaces: Vec<Interface> = devices
        .into_values()
        .filter_map(|device| {
            let index = value(&device.name, "ifindex")?.parse().ok()?;
            Some(Interface {
                index,
                received_bytes: device.recv_bytes,
                transmitted_bytes: device.sent_bytes,
                received_packets: device.recv_packets,
                transmitted_packets: device.sent_packets,
                framing_bytes: 38,
                counted_bytes: 14,
                speed: speed(&device.name, speeds),
                name: device.name,
            })
        })
        .collect();
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

fn speed(name: &str, speeds: &[NicSpeed]) -> LinkSpeed {
    let given = |speed: &&NicSpeed| speed.interface.as_deref() == Some(name);
    let general = |speed: &&NicSpeed| speed.interface.is_none();
    if let Some(speed) = speeds.iter().find(given).or_else(|| speeds.iter().find(general)) {
        return LinkSpeed::Known(speed.bits_per_second, "the given --nic-speed");
    }
    // Virtual devices answer EINVAL or -1.
    match value(name, "speed").and_then(|mbit| mbit.parse::<i64>().ok()).filter(|mbit| *mbit > 0) {
        Some(mbit) => LinkSpeed::Known(mbit.unsigned_abs() * 1_000_000, "the speed its driver reports"),
        None => LinkSpeed::Unknown(format!("{name} reports no speed; give --nic-speed {name}=RATE")),
    }
}

fn value(interface: &str, file: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{interface}/{file}")).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_speed_beats_the_general_one() {
        let speeds: Vec<NicSpeed> = ["10G", "lo=1M"].map(|text| text.parse().expect("valid")).into();
        assert_eq!(speed("lo", &speeds), LinkSpeed::Known(1_000_000, "the given --nic-speed"));
        assert_eq!(speed("other0", &speeds), LinkSpeed::Known(10_000_000_000, "the given --nic-speed"));
        assert_eq!("0G".parse::<NicSpeed>(), Err(NicSpeedError::Zero));
        assert!("fast".parse::<NicSpeed>().is_err());
    }

    #[test]
    fn loopback_has_no_speed_and_says_so() {
        let interfaces = read(&[]).expect("readable");
        let lo = interfaces.iter().find(|interface| interface.name == "lo").expect("loopback");
        assert!(matches!(&lo.speed, LinkSpeed::Unknown(why) if why.contains("--nic-speed lo=")));
    }
}
