//! Ceilings as they would be after a change.

use crate::document::{Ceiling, Kind, Part};
use crate::model::ceilings::order;

/// A change of one ceiling.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    kind: Kind,
    scope: String,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Limit(u64),
    Cost { part: Option<Part>, less: f64 },
    Gone,
}

impl Change {
    /// There is so much of it.
    pub(super) fn limit(of: &Ceiling, limit: u64) -> Self {
        Self::of(of, What::Limit(limit))
    }

    /// A connection, each of those that are open included, takes so much less of it; negative for more. `part` is what is
    /// saved on.
    pub(super) fn saving(of: &Ceiling, part: impl Into<Option<Part>>, less: f64) -> Self {
        Self::of(of, What::Cost { part: part.into(), less })
    }

    /// Connections do not count against it any more.
    pub(super) fn gone(of: &Ceiling) -> Self {
        Self::of(of, What::Gone)
    }

    /// Whether both are savings on one part.
    pub(super) fn saves_on_the_same(&self, other: &Self) -> bool {
        let part = |change: &Self| match change.what {
            What::Cost { part, .. } => Some((change.kind, part)),
            What::Limit(_) | What::Gone => None,
        };
        part(self).is_some() && part(self) == part(other)
    }

    fn of(ceiling: &Ceiling, what: What) -> Self {
        Self { kind: ceiling.kind, scope: ceiling.scope.clone(), what }
    }
}

/// What a part of a ceiling's cost comes to, in its unit. Where the cost is a slope that was observed, the parts need not sum up to
/// it, and each is taken for its share. Compression is part of the process's own memory: an estimate beyond that is none.
pub(super) fn part(ceiling: &Ceiling, part: Part) -> Option<f64> {
    let of = |part: Part| ceiling.parts.iter().find(|each| each.part == part).map(|each| each.cost);
    let sum: f64 =
        ceiling.parts.iter().filter(|each| each.part != Part::Compression).map(|each| each.cost).sum();
    let found = match part {
        Part::Compression => of(part).filter(|held| Some(*held) <= of(Part::Process))?,
        _ => of(part)?,
    };
    let scale = (ceiling.cost_per_connection? / sum).min(1.0);
    (found > 0.0 && scale > 0.0).then_some(found * scale)
}

/// The ceilings after the changes, the first to be hit first.
pub(super) fn with(ceilings: &[Ceiling], changes: &[Change]) -> Vec<Ceiling> {
    let mut all = ceilings.to_vec();
    for change in changes {
        let changed = |ceiling: &&mut Ceiling| ceiling.kind == change.kind && ceiling.scope == change.scope;
        if let Some(ceiling) = all.iter_mut().find(changed) {
            apply(ceiling, change.what);
        }
    }
    order(&mut all);
    all
}

fn apply(ceiling: &mut Ceiling, what: What) {
    // Not the limit less what is used: there may be more room, in what connections that are gone left behind. But where more
    // is used than there is, that has to be made up for first.
    let missing =
        ceiling.used.zip(ceiling.limit).map_or(0, |(used, limit)| used.saturating_sub(limit)) as f64;
    let room = ceiling
        .connections_left
        .zip(ceiling.cost_per_connection)
        .map(|(left, cost)| if left == 0 { -missing } else { left as f64 * cost });
    let room = match what {
        What::Gone => {
            ceiling.limit = None;
            None
        }
        What::Limit(limit) => {
            let more = ceiling.limit.map(|before| limit as f64 - before as f64);
            ceiling.limit = Some(limit);
            room.zip(more).map(|(room, more)| room + more)
        }
        What::Cost { part, less } => {
            let freed = less * ceiling.connections as f64;
            ceiling.used = ceiling.used.map(|used| (used as f64 - freed).max(0.0) as u64);
            ceiling.cost_per_connection = ceiling.cost_per_connection.map(|cost| cost - less);
            // What compression gives back, the process has not any more either.
            let within = (part == Some(Part::Compression)).then_some(Part::Process);
            for each in &mut ceiling.parts {
                if Some(each.part) == part || Some(each.part) == within {
                    each.cost = (each.cost - less).max(0.0);
                }
            }
            room.map(|room| room + freed)
        }
    };
    // A cost of which nothing is left makes no ceiling.
    let cost = ceiling.cost_per_connection.filter(|cost| *cost > 0.0);
    ceiling.connections_left = room.zip(cost).map(|(room, cost)| (room.max(0.0) / cost) as u64);
    ceiling.connections_max = ceiling.connections_left.map(|left| left.saturating_add(ceiling.connections));
}
