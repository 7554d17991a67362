//! A limit and a cost, both given, to a ceiling; and the simplest of them.

use std::num::NonZeroU64;

use super::{PlanError, Question};
use crate::document::{Ceiling, CostPart, Kind, Level, Trend, Unit};
use crate::model::Thresholds;

/// What a planned ceiling is made of before its consequences are computed.
pub(super) struct Given {
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    /// What it is called where there is too much of it.
    pub(super) what: &'static str,
    pub(super) limit: Option<NonZeroU64>,
    /// What one connection takes: `cost / shared_by`.
    pub(super) cost: Option<f64>,
    /// Connections among which the cost is shared.
    pub(super) shared_by: NonZeroU64,
    pub(super) parts: Vec<CostPart>,
    pub(super) basis: String,
}

impl Given {
    pub(super) fn ceiling(self, question: &Question) -> Result<Ceiling, PlanError> {
        let connections = question.planned();
        let shared_by = self.shared_by.get() as f64;
        // 2^64: from here on a document's numbers end.
        let countable = |value: f64| value < u64::MAX as f64;
        let used = self.cost.map(|cost| {
            let used = connections as f64 / shared_by * cost;
            countable(used).then_some(used.ceil() as u64).ok_or(PlanError { connections, what: self.what })
        });
        let used = used.transpose()?;
        let limit = self.limit.map(NonZeroU64::get);
        let utilization = used.zip(limit).map(|(used, limit)| used as f64 / limit as f64);
        let most = limit
            .zip(self.cost.filter(|cost| *cost > 0.0))
            // More than can be counted fit: `as` ends at the largest number there is.
            .map(|(limit, cost)| (limit as f64 * shared_by / cost) as u64);
        let mut ceiling = Ceiling {
            kind: self.kind,
            scope: "plan".into(),
            used,
            limit,
            unit: self.unit,
            utilization,
            level: Level::Unknown,
            connections,
            cost_per_connection: self.cost.map(|cost| cost / shared_by),
            cost_range: None,
            cost_samples: None,
            parts: self.parts,
            connections_left: most.map(|most| most.saturating_sub(connections)),
            connections_left_range: None,
            connections_max: most,
            seconds_left: None,
            seconds_left_range: None,
            trend: Trend::Unknown,
            first: false,
            basis: self.basis,
        };
        ceiling.level = Thresholds::default().reached_by_use(&ceiling);
        Ok(ceiling)
    }
}

/// The first to be hit first. What is left may be nothing of several, so how many fit decides.
pub(super) fn ordered(mut ceilings: Vec<Ceiling>) -> Vec<Ceiling> {
    ceilings.sort_by_key(|ceiling| (ceiling.connections_max.is_none(), ceiling.connections_max));
    if let Some(first) = ceilings.first_mut().filter(|ceiling| ceiling.connections_max.is_some()) {
        first.first = true;
    }
    ceilings
}

/// One descriptor for each TCP connection.
pub(super) fn descriptors(question: &Question) -> Result<Ceiling, PlanError> {
    let cost = match question.streams_per_connection {
        None => "one for each connection (HTTP/1.1)".to_owned(),
        Some(streams) => format!("one for {streams} WebSockets on an HTTP/2 connection"),
    };
    let basis = match question.fd_limit {
        Some(_) => format!("--fd-limit; cost: {cost}"),
        None => format!("the limit is not given (--fd-limit); cost: {cost}"),
    };
    Given {
        kind: Kind::Descriptors,
        unit: Unit::Descriptors,
        what: "descriptors",
        limit: question.fd_limit,
        cost: Some(1.0),
        shared_by: question.streams(),
        parts: Vec::new(),
        basis,
    }
    .ceiling(question)
}
