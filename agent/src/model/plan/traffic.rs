//! What goes over the wire: pings and messages, in bits and in packets.

use std::num::NonZeroU64;

use super::ceiling::Given;
use super::{PlanError, Question};
use crate::document::{Ceiling, CostPart, Kind, Part, PlannedTraffic, Unit};
use crate::model::wire::{Carried, Exchange};

/// A second of one connection's pings.
fn pings(question: &Question) -> Option<(f64, u64, Exchange)> {
    let pings = question.pings?;
    let per_second = 1.0 / pings.interval.as_secs_f64();
    Some((per_second, pings.payload, question.path().ping(pings.payload).times(per_second)))
}

/// A second of one connection's messages.
fn messages(question: &Question) -> Option<(f64, u64, Exchange)> {
    let messages = question.messages?;
    let carried = question.path().message(messages.payload).times(messages.per_second);
    Some((messages.per_second, messages.payload, carried))
}

pub(super) fn keepalive(question: &Question) -> Option<PlannedTraffic> {
    Some(all(question, pings(question)?))
}

pub(super) fn application(question: &Question) -> Option<PlannedTraffic> {
    Some(all(question, messages(question)?))
}

/// The same of all connections.
fn all(question: &Question, (per_second, payload, carried): (f64, u64, Exchange)) -> PlannedTraffic {
    let connections = question.planned() as f64;
    let Exchange { sent, received } = carried.times(connections);
    PlannedTraffic {
        per_second: per_second * connections,
        payload_bytes_per_second: per_second * connections * payload as f64,
        sent_bits_per_second: bits(sent),
        received_bits_per_second: bits(received),
        sent_packets_per_second: sent.packets,
        received_packets_per_second: received.packets,
    }
}

fn bits(carried: Carried) -> f64 {
    8.0 * carried.bytes
}

pub(super) fn bandwidth(question: &Question) -> Result<Ceiling, PlanError> {
    let limit = (question.nic_speed, "--nic-speed");
    ceiling(question, Kind::Bandwidth, Unit::BitsPerSecond, "bandwidth", limit, bits)
}

pub(super) fn packets(question: &Question) -> Result<Ceiling, PlanError> {
    let limit = (question.packet_rate, "--packet-rate");
    ceiling(question, Kind::Packets, Unit::PacketsPerSecond, "packets", limit, |carried| carried.packets)
}

/// The busier direction of pings and messages together, as `measure` sees it.
fn ceiling(
    question: &Question,
    kind: Kind,
    unit: Unit,
    what: &'static str,
    (limit, flag): (Option<NonZeroU64>, &str),
    measure: impl Fn(Carried) -> f64,
) -> Result<Ceiling, PlanError> {
    let carried = |of: Option<(f64, u64, Exchange)>| of.map(|(_, _, exchange)| exchange);
    let (pings, messages) = (carried(pings(question)), carried(messages(question)));
    let sum = pings.unwrap_or_default() + messages.unwrap_or_default();
    let sent_is_busier = measure(sum.sent) >= measure(sum.received);
    let busier = |exchange: Exchange| measure(if sent_is_busier { exchange.sent } else { exchange.received });
    let part = |part, exchange: Option<Exchange>| {
        exchange.map(|exchange| CostPart { part, cost: busier(exchange), range: None, samples: 0 })
    };
    let parts: Vec<CostPart> =
        [part(Part::Keepalive, pings), part(Part::Application, messages)].into_iter().flatten().collect();
    let known = if limit.is_some() { flag.to_owned() } else { format!("the limit is not given ({flag})") };
    let basis = if parts.is_empty() {
        format!("{known}; nothing to carry is given (--ping-interval, --message-rate)")
    } else {
        let direction = if sent_is_busier { "sent" } else { "received" };
        format!(
            "{known}; cost: the busier direction ({direction}), {}{}",
            if pings.is_some() {
                "pings, pongs and acknowledgements"
            } else {
                "messages and acknowledgements"
            },
            match (pings, messages) {
                (Some(_), Some(_)) => " and messages",
                _ => "",
            }
        ) + if kind == Kind::Bandwidth {
            ", with TCP/IP headers and 38 bytes of Ethernet a packet"
        } else {
            ""
        }
    };
    Given {
        kind,
        unit,
        what,
        limit,
        cost: (!parts.is_empty()).then(|| busier(sum)),
        shared_by: NonZeroU64::MIN,
        parts,
        basis,
    }
    .ceiling(question)
}
