//! Quantities people type: durations, sizes, link speeds. A unit is always required where leaving it out would be a
//! guess.

use std::time::Duration;

use thiserror::Error;

/// Why a quantity could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    /// The text does not begin with a number, or the number is negative or not finite.
    #[error("{0:?} is not a number of zero or more")]
    Number(String),
    /// The unit is missing or not one of those listed.
    #[error("{text:?} needs a unit: one of {expected}")]
    Unit {
        /// What was typed.
        text: String,
        /// The units that would have been understood.
        expected: &'static str,
    },
    /// The quantity does not fit.
    #[error("{0:?} is too large")]
    Range(String),
}

/// Bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub u64);

const DURATION_UNITS: &[(&str, f64)] =
    &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
const SIZE_UNITS: &[(&str, f64)] = &[
    ("B", 1.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];
const RATE_UNITS: &[(&str, f64)] =
    &[("bit", 1.0), ("K", 1e3), ("kbit", 1e3), ("M", 1e6), ("Mbit", 1e6), ("G", 1e9), ("Gbit", 1e9)];
/// What is counted needs no unit.
const COUNT_UNITS: &[(&str, f64)] = &[("", 1.0), ("K", 1e3), ("M", 1e6)];

/// Parses `100ms`, `1.5s`, `2m`, `1h`, `1d`; a bare `0` is zero.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let seconds = quantity(text, DURATION_UNITS, "us, ms, s, m, h, d")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| UnitError::Range(text.into()))
}

/// Parses `512B`, `4KiB`, `10KB`, `64GB` into bytes; a bare `0` is zero.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    whole(text, quantity(text, SIZE_UNITS, "B, KB, MB, GB, TB, KiB, MiB, GiB, TiB")?)
}

/// Parses `100M`, `10G`, `2.5Gbit` into bits per second.
pub fn parse_rate(text: &str) -> Result<Rate, UnitError> {
    whole(text, quantity(text, RATE_UNITS, "bit, K, M, G, kbit, Mbit, Gbit")?).map(Rate)
}

/// Parses `800000`, `800K`, `1.2M` into a number of things.
pub fn parse_count(text: &str) -> Result<u64, UnitError> {
    whole(text, quantity(text, COUNT_UNITS, "K, M, or none")?)
}

fn quantity(text: &str, units: &[(&str, f64)], expected: &'static str) -> Result<f64, UnitError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| UnitError::Number(text.into()))?;
    let unit = text[digits..].trim();
    if unit.is_empty() && number == 0.0 {
        return Ok(0.0);
    }
    let scale = units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| scale);
    scale.map(|scale| number * scale).ok_or_else(|| UnitError::Unit { text: text.into(), expected })
}

fn whole(text: &str, value: f64) -> Result<u64, UnitError> {
    // 2^64 is the first value that does not fit; `as` would saturate and hide the mistake.
    if value < 18_446_744_073_709_551_616.0 {
        Ok(value.round() as u64)
    } else {
        Err(UnitError::Range(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_what_people_type() {
        assert_eq!(parse_duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_size("4KiB"), Ok(4096));
        assert_eq!(parse_size("10KB"), Ok(10_000));
        assert_eq!(parse_rate("2.5G"), Ok(Rate(2_500_000_000)));
        assert_eq!(parse_count("800000"), Ok(800_000));
        assert_eq!(parse_count("1.2M"), Ok(1_200_000));
    }

    #[test]
    fn refuses_guesses() {
        assert!(matches!(parse_duration("5"), Err(UnitError::Unit { .. })));
        assert!(matches!(parse_duration("-5s"), Err(UnitError::Number(_))));
        assert!(matches!(parse_duration(""), Err(UnitError::Number(_))));
        assert!(matches!(parse_size("10 parsecs"), Err(UnitError::Unit { .. })));
        assert!(matches!(parse_size("99999999999TB"), Err(UnitError::Range(_))));
        assert!(matches!(parse_rate("fast"), Err(UnitError::Number(_))));
        assert!(matches!(parse_count("12 dozen"), Err(UnitError::Unit { .. })));
    }
}
