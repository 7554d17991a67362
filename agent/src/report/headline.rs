//! The first ceiling in one sentence.

use crate::document::Ceiling;

use super::format;

/// Names the ceiling that is hit first: `descriptors first: 18,432 of 20,000, 1,568 connections left (process 1234), in
/// 4 min at this rate`. Where no ceiling can be named, says why.
pub fn headline(ceilings: &[Ceiling]) -> String {
    let Some(ceiling) = ceilings.iter().find(|ceiling| ceiling.first) else {
        return match ceilings.first() {
            None => "first ceiling unknown: nothing was measured yet".to_owned(),
            // The agent lists the nearest first, so the first reason is the one that matters.
            Some(nearest) => {
                format!(
                    "first ceiling unknown: {} ({}): {}",
                    nearest.kind.name(),
                    scope(&nearest.scope),
                    nearest.basis
                )
            }
        };
    };
    let quantity = |value: Option<u64>| {
        value.map_or_else(|| "unknown".to_owned(), |value| format::quantity(value, ceiling.unit))
    };
    let mut text = format!(
        "{} first: {} of {}, {} ({})",
        ceiling.kind.name(),
        quantity(ceiling.used),
        quantity(ceiling.limit),
        connections(ceiling.connections_left),
        scope(&ceiling.scope),
    );
    if let Some(seconds) = ceiling.seconds_left {
        text.push_str(&format!(", in {} at this rate", format::span(seconds)));
    }
    text
}

/// A ceiling's scope in words: `process:1234` → `process 1234`.
pub fn scope(scope: &str) -> String {
    scope.replacen(':', " ", 1)
}

fn connections(left: Option<u64>) -> String {
    match left {
        None => "connections left unknown".to_owned(),
        Some(1) => "1 connection left".to_owned(),
        Some(left) => format!("{} connections left", format::count(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Kind, Level, Trend, Unit};

    fn descriptors() -> Ceiling {
        Ceiling {
            kind: Kind::Descriptors,
            scope: "process:1234".into(),
            used: Some(18_432),
            limit: Some(20_000),
            unit: Unit::Descriptors,
            utilization: Some(0.9216),
            level: Level::Near,
            connections: 18_400,
            cost_per_connection: Some(1.0),
            cost_range: None,
            cost_samples: None,
            parts: Vec::new(),
            connections_left: Some(1568),
            connections_left_range: None,
            connections_max: Some(19_968),
            seconds_left: None,
            seconds_left_range: None,
            trend: Trend::Unknown,
            first: true,
            basis: "soft RLIMIT_NOFILE".into(),
        }
    }

    #[test]
    fn names_the_ceiling_what_is_left_and_whose_it_is() {
        assert_eq!(
            headline(&[descriptors()]),
            "descriptors first: 18,432 of 20,000, 1,568 connections left (process 1234)"
        );
    }

    #[test]
    fn adds_the_time_where_the_count_grows() {
        let growing = Ceiling { seconds_left: Some(240.0), ..descriptors() };
        assert!(headline(&[growing]).ends_with("left (process 1234), in 4 min at this rate"));
    }

    #[test]
    fn speaks_of_one_connection_in_the_singular_and_of_unknown_ones_as_unknown() {
        let last = Ceiling { connections_left: Some(1), ..descriptors() };
        assert!(headline(&[last]).contains(", 1 connection left"));
        let unknown = Ceiling { connections_left: None, used: None, ..descriptors() };
        assert!(headline(&[unknown]).contains("unknown of 20,000, connections left unknown"));
    }

    #[test]
    fn says_why_no_ceiling_is_named() {
        assert_eq!(headline(&[]), "first ceiling unknown: nothing was measured yet");
        let unpriced = Ceiling { first: false, basis: "no connection seen to price".into(), ..descriptors() };
        assert_eq!(
            headline(&[unpriced]),
            "first ceiling unknown: descriptors (process 1234): no connection seen to price"
        );
    }
}
