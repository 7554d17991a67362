//! The first ceiling in one sentence.

use crate::document::{Ceiling, Trend};

use super::{format, words};

/// Names the ceiling that is hit first: `descriptors first: 18,432 of 20,000, 1,568 connections left (process 1234), in
/// 4 min (3–6 min) at this rate`. Where no ceiling can be named, says why.
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
    match ceiling.trend {
        Trend::Growing if ceiling.seconds_left.is_some() => {
            text.push_str(&format!(", in {} at this rate", words::full_in(ceiling)));
        }
        Trend::Steady => text.push_str(", not growing"),
        Trend::Recovering => text.push_str(", recovering"),
        Trend::Growing | Trend::Unknown => {}
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
    use crate::document::{Kind, Level, Range, Unit};

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
        let range = Range { least: 180.0, most: Some(360.0) };
        let growing = Ceiling {
            seconds_left: Some(240.0),
            seconds_left_range: Some(range),
            trend: Trend::Growing,
            ..descriptors()
        };
        assert!(headline(&[growing]).ends_with("left (process 1234), in 4 min (3–6 min) at this rate"));
    }

    #[test]
    fn says_why_no_time_is_given() {
        let trend = |trend| headline(&[Ceiling { trend, ..descriptors() }]);
        assert!(trend(Trend::Steady).ends_with("(process 1234), not growing"));
        assert!(trend(Trend::Recovering).ends_with("(process 1234), recovering"));
        assert!(trend(Trend::Growing).ends_with("(process 1234)"));
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
