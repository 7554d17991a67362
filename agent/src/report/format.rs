//! Numbers as people read them: thousands separators, binary units for memory, SI units for links, one unit of time.
//!
//! A number that is not known is [`UNKNOWN`], never 0.

use crate::document::{Range, Unit};

/// Stands for a number that is not known.
pub const UNKNOWN: &str = "–";

/// `1234567` → `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count for a narrow column: exact up to 999,999, then three significant digits (`1.23M`).
pub fn count_short(value: u64) -> String {
    if value < 1_000_000 {
        count(value)
    } else {
        scaled(value as f64, 1000.0, &["", "K", "M", "G", "T", "P", "E"], "")
    }
}

/// Memory in binary units: `512 B`, `4.00 KiB`, `31.2 GiB`.
pub fn bytes(value: u64) -> String {
    scaled(value as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], " ")
}

/// A link's speed in SI units: `950 bit/s`, `1.25 Gbit/s`.
pub fn bit_rate(value: f64) -> String {
    scaled(value, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s"], " ")
}

/// `value` in a ceiling's own unit.
pub fn quantity(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => bytes(value),
        Unit::BitsPerSecond => bit_rate(value as f64),
        Unit::Millicores => cores(value as f64),
        Unit::PacketsPerSecond => format!("{}/s", count(value)),
        _ => count(value),
    }
}

/// A cost per connection, which is seldom whole: with HTTP/2 one descriptor carries several connections.
pub fn cost(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => bytes(value.max(0.0).round() as u64),
        Unit::BitsPerSecond => bit_rate(value),
        Unit::Millicores => cores(value),
        Unit::PacketsPerSecond => format!("{}/s", significant(value)),
        _ if value.fract() == 0.0 => count(value.max(0.0) as u64),
        _ => format!("{value:.2}"),
    }
}

/// Thousandths of a core: `2 cores`, `0.35 cores`, `12 µcores`.
fn cores(millicores: f64) -> String {
    match millicores {
        m if m > 0.0 && m < 1.0 => format!("{} µcores", significant(m * 1e3)),
        m => format!("{} cores", significant(m / 1e3)),
    }
}

/// `0.4936` → `49%`. What rounds to nothing but is something says so.
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent > 0.0 && percent < 1.0 { "<1%".to_owned() } else { format!("{percent:.0}%") }
}

/// A span of time in the one unit that matters: `45 s`, `4 min`, `3 h`, `12 d`.
pub fn span(seconds: f64) -> String {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 3600.0;
    const DAY: f64 = 86_400.0;
    // The switch to the next unit waits for its second half, so that no span is off by more than a third.
    match seconds {
        s if s < 1.5 * MINUTE => format!("{s:.0} s"),
        s if s < 1.5 * HOUR => format!("{:.0} min", s / MINUTE),
        s if s < 1.5 * DAY => format!("{:.0} h", s / HOUR),
        s => format!("{} d", count((s / DAY).round() as u64)),
    }
}

/// An interval of time: `3–6 min`, `45 s–2 min`, `3 min or more`. Ends that read the same are one.
pub fn span_range(range: Range) -> String {
    let least = span(range.least);
    let Some(most) = range.most.map(span) else { return format!("{least} or more") };
    match (least.rsplit_once(' '), most.rsplit_once(' ')) {
        _ if least == most => least,
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number}–{most}"),
        _ => format!("{least}–{most}"),
    }
}

/// A connection's age for a narrow column, whole units that have passed: `45s`, `4m`, `3h`, `12d`.
pub fn age(seconds: f64) -> String {
    match seconds.max(0.0) {
        s if s < 60.0 => format!("{:.0}s", s.floor()),
        s if s < 3600.0 => format!("{:.0}m", (s / 60.0).floor()),
        s if s < 86_400.0 => format!("{:.0}h", (s / 3600.0).floor()),
        s => format!("{:.0}d", (s / 86_400.0).floor()),
    }
}

/// A latency or a short period: `850 µs`, `12.3 ms`, `1.50 s`.
pub fn latency(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{} ms", significant(s * 1e3)),
        s => format!("{} s", significant(s)),
    }
}

/// A number with about three significant digits.
pub fn significant(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `format(value)`, or [`UNKNOWN`].
pub fn known<T>(value: Option<T>, format: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), format)
}

fn scaled(value: f64, step: f64, units: &[&str], gap: &str) -> String {
    let mut value = value;
    let mut place = 0;
    // 999.5 would be printed as 1000: it belongs to the next unit already.
    while value >= step.min(999.5) && place + 1 < units.len() {
        value /= step;
        place += 1;
    }
    let number = if place == 0 { format!("{value:.0}") } else { significant(value) };
    format!("{number}{gap}{}", units[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_thousands_separators() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(18_432), "18,432");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(count_short(999_999), "999,999");
        assert_eq!(count_short(1_234_567), "1.23M");
    }

    #[test]
    fn memory_is_binary_and_links_are_decimal() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(4096), "4.00 KiB");
        assert_eq!(bytes(1_048_575), "1.00 MiB");
        assert_eq!(bytes(33_500_000_000), "31.2 GiB");
        assert_eq!(bit_rate(950.0), "950 bit/s");
        assert_eq!(bit_rate(1_250_000_000.0), "1.25 Gbit/s");
    }

    #[test]
    fn a_shared_descriptor_costs_a_fraction() {
        assert_eq!(cost(1.0, Unit::Descriptors), "1");
        assert_eq!(cost(0.125, Unit::Descriptors), "0.12");
        assert_eq!(cost(2560.0, Unit::Bytes), "2.50 KiB");
    }

    #[test]
    fn ratios_and_times() {
        assert_eq!(percent(0.0), "0%");
        assert_eq!(percent(0.004), "<1%");
        assert_eq!(percent(0.9216), "92%");
        assert_eq!(span(45.0), "45 s");
        assert_eq!(span(240.0), "4 min");
        assert_eq!(span(10_800.0), "3 h");
        assert_eq!(span(1_036_800.0), "12 d");
        let range = |least, most| span_range(Range { least, most });
        assert_eq!(range(180.0, Some(360.0)), "3–6 min");
        assert_eq!(range(45.0, Some(120.0)), "45 s–2 min");
        assert_eq!(range(178.0, Some(182.0)), "3 min");
        assert_eq!(range(180.0, None), "3 min or more");
        assert_eq!(age(59.9), "59s");
        assert_eq!(age(7300.0), "2h");
        assert_eq!(latency(0.000_85), "850 µs");
        assert_eq!(latency(0.0123), "12.3 ms");
        assert_eq!(latency(1.5), "1.50 s");
    }
}
