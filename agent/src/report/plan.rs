//! A plan as text.

use crate::document::{Ceiling, Plan, PlannedTraffic};

use super::format::{bit_rate, bytes, cost, count, known, latency, percent, quantity, significant};
use super::grid::grid;
use super::text::Report;
use super::words::{level, part};

/// Plans that differ in nothing but the number of connections, for people: whether each fits and what comes first, then what
/// they have in common.
pub fn plans(plans: &[Plan]) -> Report {
    let mut text = Report::new();
    for plan in plans {
        text.line(headline(plan));
        text.append(&ceilings(&plan.ceilings));
        if plan.connections > 0 {
            more(&mut text, plan);
        }
        text.line("");
    }
    if let Some(any) = plans.first() {
        let costs = costs(&any.ceilings);
        if !costs.is_empty() {
            text.line("A connection costs");
            text.append(&costs);
        }
        text.line("");
        text.line("Basis");
        for ceiling in &any.ceilings {
            text.line(format_args!("  {}: {}", ceiling.kind.name(), ceiling.basis));
        }
    }
    text
}

fn headline(plan: &Plan) -> String {
    let Some((first, most)) = plan.ceilings.first().and_then(|first| Some((first, first.connections_max?)))
    else {
        return "no ceiling known: no limit is given that can be set against a cost".to_owned();
    };
    let first = first.kind.name();
    let most = count(most);
    match plan.connections {
        0 => format!("{most} connections fit: {first} first"),
        planned => {
            let exceeded: Vec<&str> = plan
                .ceilings
                .iter()
                .filter(|ceiling| ceiling.connections_max.is_some_and(|most| most < planned))
                .map(|ceiling| ceiling.kind.name())
                .collect();
            match exceeded.as_slice() {
                [] => format!("{} connections fit: {first} first, at {most}", count(planned)),
                [_] => format!("{} connections do not fit: {first} first, at {most}", count(planned)),
                [_, others @ ..] => format!(
                    "{} connections do not fit: {first} first, at {most}, then {}",
                    count(planned),
                    others.join(", ")
                ),
            }
        }
    }
}

fn ceilings(ceilings: &[Ceiling]) -> Report {
    let header = ["", "ceiling", ">used", ">limit", ">use", "level", ">per connection", ">left", ">max"];
    let row = |ceiling: &Ceiling| {
        vec![
            if ceiling.first { "▶" } else { "" }.to_owned(),
            ceiling.kind.name().to_owned(),
            known(ceiling.used, |value| quantity(value, ceiling.unit)),
            known(ceiling.limit, |value| quantity(value, ceiling.unit)),
            known(ceiling.utilization, percent),
            level(ceiling.level).to_owned(),
            known(ceiling.cost_per_connection, |value| cost(value, ceiling.unit)),
            known(ceiling.connections_left, count),
            known(ceiling.connections_max, count),
        ]
    };
    grid(&header, &ceilings.iter().map(row).collect::<Vec<_>>())
}

fn costs(ceilings: &[Ceiling]) -> Report {
    let rows: Vec<Vec<String>> = ceilings
        .iter()
        .flat_map(|ceiling| {
            ceiling.parts.iter().map(|each| {
                let most = each.range.and_then(|range| range.most);
                vec![
                    ceiling.kind.name().to_owned(),
                    part(each.part).to_owned(),
                    cost(each.cost, ceiling.unit),
                    most.map_or_else(String::new, |most| format!("(to {})", cost(most, ceiling.unit))),
                ]
            })
        })
        .collect();
    grid(&["of", "for", ">each", ""], &rows)
}

/// What no ceiling says.
fn more(text: &mut Report, plan: &Plan) {
    let mut line = |name: &str, value: String| text.line(format_args!("  {name:<11} {value}"));
    if let Some(each) = plan.memory_per_connection {
        line("memory", format!("{} for each, if nothing else takes any", bytes(each as u64)));
    }
    if let Some(pings) = plan.keepalive {
        line("pings", traffic(&pings));
    }
    if let Some(messages) = plan.application {
        line("messages", traffic(&messages));
    }
    let handshakes = &plan.handshakes;
    let tls = match handshakes.tls {
        0 => String::new(),
        tls => format!(", {} TLS", count(tls)),
    };
    let rate = handshakes.tcp_per_second.map_or_else(String::new, |rate| {
        format!("; {} TCP handshakes/s in the time given", significant(rate))
    });
    line(
        "handshakes",
        format!(
            "{} TCP{tls}, {} upgrades, {} descriptors{rate}",
            count(handshakes.tcp),
            count(handshakes.upgrades),
            count(handshakes.descriptors)
        ),
    );
    let time = handshakes
        .first_message_seconds
        .map_or_else(String::new, |seconds| format!(", {}", latency(seconds)));
    line("open after", format!("{} round trips{time}, then the first message", handshakes.round_trips));
}

fn traffic(traffic: &PlannedTraffic) -> String {
    let packets = traffic.sent_packets_per_second + traffic.received_packets_per_second;
    format!(
        "{}/s with {}/s of payload; on the wire {} sent, {} received, {} packets/s",
        rate(traffic.per_second),
        bytes(traffic.payload_bytes_per_second.round() as u64),
        bit_rate(traffic.sent_bits_per_second),
        bit_rate(traffic.received_bits_per_second),
        rate(packets),
    )
}

/// Events a second: whole where there are many.
fn rate(per_second: f64) -> String {
    if per_second < 1000.0 { significant(per_second) } else { count(per_second.round() as u64) }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use super::*;
    use crate::model::{self, Pings, Question};

    fn told(question: Question) -> String {
        plans(&[model::plan(&question).expect("countable")]).to_string()
    }

    #[test]
    fn says_whether_it_fits_and_what_comes_first() {
        let question = Question {
            connections: NonZeroU64::new(1_000_000),
            memory: NonZeroU64::new(16_000_000_000),
            fd_limit: NonZeroU64::new(1_048_576),
            bytes_per_connection: NonZeroU64::new(10_000),
            ..Question::default()
        };
        let text = told(question);
        assert!(text.starts_with("1,000,000 connections fit: descriptors first, at 1,048,576\n"), "{text}");
        let twice = Question { connections: NonZeroU64::new(2_000_000), ..question };
        let text = told(twice);
        let expected = "2,000,000 connections do not fit: descriptors first, at 1,048,576, then memory\n";
        assert!(text.starts_with(expected), "{text}");
        let open = told(Question { connections: None, ..question });
        assert!(open.starts_with("1,048,576 connections fit: descriptors first\n"), "{open}");
        assert!(!open.contains("handshakes"), "nothing is planned: {open}");
    }

    #[test]
    fn says_what_was_not_given() {
        let text = told(Question { connections: NonZeroU64::new(10), ..Question::default() });
        assert!(text.starts_with("no ceiling known"), "{text}");
        for flag in ["--memory", "--fd-limit", "--nic-speed", "--packet-rate", "--bytes-per-connection"] {
            assert!(text.contains(flag), "{flag} is missing: {text}");
        }
    }

    #[test]
    fn pings_are_told_with_their_payload_and_on_the_wire() {
        let text = told(Question {
            connections: NonZeroU64::new(1_000_000),
            pings: Some(Pings { interval: Duration::from_secs(30), payload: 0 }),
            ..Question::default()
        });
        let line = "33,333/s with 0 B/s of payload; on the wire 48.5 Mbit/s sent, 25.6 Mbit/s received, 100,000 packets/s";
        assert!(text.contains(line), "{text}");
    }
}
