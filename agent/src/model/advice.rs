//! Advice: changes whose effect can be computed, and only those.
//!
//! Each rule looks at the ceiling that is hit first and proposes changes of limits or costs. A proposal is weighed by applying it to
//! all ceilings ([`what_if`]): its effect is that of the ceiling which is hit first afterwards, and a proposal that moves nothing
//! is not given. Once the best proposal has moved the first ceiling, the same is asked of the one that is first then, as if that
//! change had been made.
//!
//! What is left out because its effect cannot be told in connections: longer accept queues (they lose connections in a burst, not
//! at a count), and compression that gains little (how far messages shrink cannot be seen from outside the server).

mod buffers;
mod compression;
mod conntrack;
mod descriptors;
mod http2;
mod keepalive;
mod kernel_limits;
mod what_if;

use super::{Rates, Reading, Summary};
use crate::document::{Advice, Ceiling, Effect, Kind};
use crate::report::format::count;
use what_if::{Change, with};

/// Ceilings that advice is given for: the first, and those that would be first after it.
const STEPS: usize = 3;

/// The least gain that is worth a change.
const WORTHWHILE: f64 = 0.01;

/// Everything that advice is drawn from.
pub struct Known<'a> {
    /// Ceilings, the first to be hit first.
    pub ceilings: &'a [Ceiling],
    /// The host now.
    pub reading: &'a Reading,
    /// Sums over connections, by the last sweep.
    pub summary: &'a Summary,
    /// What connections carry.
    pub rates: &'a Rates,
}

/// What a rule proposes, before it is known what comes of it.
struct Proposal {
    id: &'static str,
    action: String,
    evidence: String,
    changes: Vec<Change>,
}

/// A rule: what would move the first of the ceilings that are `known`.
type Rule = fn(&Known<'_>, first: &Ceiling) -> Vec<Proposal>;

const RULES: [Rule; 7] = [
    descriptors::advise,
    kernel_limits::advise,
    conntrack::advise,
    keepalive::advise,
    compression::advise,
    buffers::advise,
    http2::advise,
];

/// A proposal that moves something.
struct Weighed {
    advice: Advice,
    changes: Vec<Change>,
    /// The ceilings as they would be.
    after: Vec<Ceiling>,
}

/// What would move the first ceiling, best first, and then those behind it.
pub fn advise(known: &Known<'_>) -> Vec<Advice> {
    let mut steps: Vec<Vec<Advice>> = Vec::new();
    let mut ceilings = known.ceilings.to_vec();
    let (mut done, mut changed): (Vec<String>, Vec<Change>) = Default::default();
    while steps.len() < STEPS {
        let Some(first) = ceilings.first().filter(|ceiling| ceiling.first).cloned() else { break };
        let known = Known { ceilings: &ceilings, ..*known };
        // What can be saved on a part was measured, and is no longer what it was once something is saved on it.
        let again = |change: &Change| changed.iter().any(|done| done.saves_on_the_same(change));
        let mut weighed: Vec<Weighed> = RULES
            .iter()
            .flat_map(|rule| rule(&known, &first))
            .filter(|proposal| !proposal.changes.iter().any(again))
            .filter_map(|proposal| weigh(proposal, &ceilings, &first, &done))
            .collect();
        weighed.sort_by_key(|weighed| std::cmp::Reverse(weighed.advice.effect.connections_max_after));
        let mut advice: Vec<Advice> = weighed.iter().map(|weighed| weighed.advice.clone()).collect();
        let Some(best) = weighed.into_iter().next() else { break };
        // Of what is behind the first ceiling, one way on is enough.
        if !steps.is_empty() {
            advice.truncate(1);
        }
        steps.push(advice);
        let moved =
            best.after.first().is_some_and(|now| (now.kind, &now.scope) != (first.kind, &first.scope));
        if !moved {
            break;
        }
        if !done.contains(&best.advice.id) {
            done.push(best.advice.id);
        }
        changed.extend(best.changes);
        ceilings = best.after;
    }
    worthwhile(steps)
}

/// Leaves out what gains next to nothing, except where it clears the way for what does: of two ceilings that are hit at the same
/// time, either one moves nothing by itself.
fn worthwhile(steps: Vec<Vec<Advice>>) -> Vec<Advice> {
    let mut kept: Vec<Advice> = Vec::new();
    for mut step in steps.into_iter().rev() {
        let clears = !kept.is_empty();
        let mut place = 0;
        step.retain(|advice| {
            place += 1;
            clears && place == 1 || gain(advice) >= WORTHWHILE
        });
        kept.splice(0..0, step);
    }
    kept
}

/// By how much more connections fit, as a share of those that fit before.
fn gain(advice: &Advice) -> f64 {
    let (before, after) = (advice.effect.connections_max_before, advice.effect.connections_max_after);
    after.saturating_sub(before) as f64 / before as f64
}

/// The advice with its effect; `None` where it moves nothing.
fn weigh(proposal: Proposal, ceilings: &[Ceiling], first: &Ceiling, done: &[String]) -> Option<Weighed> {
    let after = with(ceilings, &proposal.changes);
    let before = first.connections_left?.checked_add(first.connections)?;
    // Where no ceiling is known any more, neither is the effect.
    let left = after.first().filter(|ceiling| ceiling.first)?.connections_left?;
    let effect = Effect {
        connections_max_before: before,
        connections_max_after: left.saturating_add(first.connections),
    };
    let advice = Advice {
        id: proposal.id.into(),
        ceiling: first.kind,
        action: proposal.action,
        effect,
        evidence: match done {
            [] => proposal.evidence,
            done => format!("{}; counted as if {} were done", proposal.evidence, done.join(" and ")),
        },
    };
    (effect.connections_max_after > before).then_some(Weighed { advice, changes: proposal.changes, after })
}

/// A limit for `first` that is high enough for another ceiling to come before it, as the next power of two; `None` where no
/// other is known.
fn enough(known: &Known<'_>, first: &Ceiling) -> Option<u64> {
    let others =
        known.ceilings.iter().filter(|other| (other.kind, &other.scope) != (first.kind, &first.scope));
    let next =
        others.filter(|other| !alike(other, first)).filter_map(|other| other.connections_left).min()?;
    let more = next.saturating_sub(first.connections_left?) as f64 * first.cost_per_connection?;
    first.limit?.checked_add(more.ceil() as u64)?.checked_next_power_of_two()
}

/// Whether one setting limits both.
fn alike(one: &Ceiling, other: &Ceiling) -> bool {
    let kinds = [Kind::Conntrack, Kind::EpollWatches, Kind::MemoryMaps];
    one.kind == other.kind && kinds.contains(&one.kind)
}

/// `20,000 of 20,480 descriptors`: what is used of a ceiling, as evidence.
fn used(ceiling: &Ceiling) -> String {
    let known = |value: Option<u64>| value.map_or_else(|| "an unknown number".to_owned(), count);
    format!("{} of {}", known(ceiling.used), known(ceiling.limit))
}

#[cfg(test)]
mod tests;
