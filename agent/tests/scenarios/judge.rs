//! What was said, against what may be said.

use std::time::Duration;

use agent::document::{Ceiling, Level, Range};

use crate::replay::Said;
use crate::script::{Expect, Script};
use crate::series::Moment;

/// Everything that is wrong with what was said of one limit, one line each.
pub(crate) fn faults(script: &Script, moments: &[Moment], said: &Said) -> Vec<String> {
    let mut faults = Vec::new();
    if let Some((at, ceiling)) = said.ceilings.iter().find(|(_, one)| one.level > script.highest_level) {
        faults.push(format!("{at:?}: {}", describe(ceiling)));
    }
    let seen_before = |change: &&(Duration, _)| change.0 > Duration::ZERO;
    let changes: Vec<_> = said.changes.iter().filter(seen_before).collect();
    if changes.len() > script.most_changes {
        let told: Vec<String> = changes
            .iter()
            .map(|(at, change)| format!("{at:?} {:?} → {:?}: {}", change.from, change.to, change.reason))
            .collect();
        faults.push(format!("{} changes of level: {}", changes.len(), told.join("; ")));
    }
    for expect in &script.expect {
        faults.extend(unmet(expect, script, moments, said));
    }
    faults
}

fn unmet(expect: &Expect, script: &Script, moments: &[Moment], said: &Said) -> Option<String> {
    let end = Duration::MAX;
    let (from, to) = match expect.at_use {
        None => (expect.from.unwrap_or_default(), expect.to.unwrap_or(end)),
        Some(share) => {
            let used = |moment: &&Moment| moment.total() as f64 >= share * script.limit as f64;
            let at = moments.iter().find(used).map(|moment| moment.at)?;
            (at, at)
        }
    };
    let within: Vec<&(Duration, Ceiling)> =
        said.ceilings.iter().filter(|(at, _)| (from..=to).contains(at)).collect();
    // Between which moments the limit is hit, as the series has it.
    let full = |at: Duration| {
        let hit = moments.iter().position(|moment| moment.at > at && moment.total() >= script.limit)?;
        let until = |place: usize| moments[place].at.saturating_sub(at).as_secs_f64();
        Some((until(hit.saturating_sub(1)), until(hit)))
    };
    let bad: Vec<(Duration, String)> = within
        .iter()
        .filter_map(|(at, ceiling)| fault(expect, ceiling, full(*at)).map(|fault| (*at, fault)))
        .collect();
    let met = 1.0 - bad.len() as f64 / within.len() as f64;
    if within.is_empty() {
        return Some(format!("nothing was said between {from:?} and {to:?}"));
    }
    (met < expect.share).then(|| {
        let (at, first) = &bad[0];
        format!("{expect:?} is met in {:.2}% only, first not at {at:?}: {first}", 100.0 * met)
    })
}

fn fault(expect: &Expect, ceiling: &Ceiling, truth: Option<(f64, f64)>) -> Option<String> {
    let is_one = |ok: bool| (!ok).then(|| describe(ceiling));
    let trend = expect.trend.as_ref().and_then(|trends| is_one(trends.contains(&ceiling.trend)));
    let level = expect.level.as_ref().and_then(|levels| is_one(levels.contains(&ceiling.level)));
    let no_time = is_one(!expect.no_time || ceiling.seconds_left.is_none());
    let time = (expect.error.is_some() || expect.covers || expect.width.is_some()).then(|| {
        let ((earliest, truth), seconds) = (truth?, ceiling.seconds_left?);
        let Range { least, most } = ceiling.seconds_left_range?;
        let most = most.unwrap_or(f64::INFINITY);
        let near = expect.error.is_none_or(|error| (seconds / truth - 1.0).abs() <= error);
        let covers = !expect.covers || least <= truth && earliest <= most;
        let narrow = expect.width.is_none_or(|width| (most - least) / truth <= width);
        Some(near && covers && narrow)
    });
    let time = time.and_then(|ok| match ok {
        Some(true) => None,
        _ => Some(format!("{}; the truth is {truth:?}", describe(ceiling))),
    });
    trend.or(level).or(no_time).or(time)
}

fn describe(ceiling: &Ceiling) -> String {
    format!(
        "{} with {} connections: {:?}, {:?}, {:?} s left {:?}",
        ceiling.scope,
        ceiling.connections,
        ceiling.level,
        ceiling.trend,
        ceiling.seconds_left,
        ceiling.seconds_left_range.map(|range| (range.least, range.most)),
    )
}

/// A level in the words of a scenario.
pub(crate) fn highest(said: &Said) -> Level {
    said.ceilings.iter().map(|(_, ceiling)| ceiling.level).max().unwrap_or(Level::Unknown)
}
