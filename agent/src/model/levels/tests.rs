//! The levels' rules, one by one.

use super::*;
use crate::document::{Range, Trend, Unit};

fn ceiling(used: u64) -> Ceiling {
    Ceiling {
        kind: Kind::Descriptors,
        scope: "process:7".into(),
        used: Some(used),
        limit: Some(1_000),
        unit: Unit::Descriptors,
        utilization: Some(used as f64 / 1_000.0),
        level: Level::Unknown,
        connections: used,
        cost_per_connection: Some(1.0),
        cost_range: None,
        cost_samples: None,
        parts: Vec::new(),
        connections_left: Some(1_000 - used),
        connections_left_range: None,
        connections_max: Some(1_000),
        seconds_left: None,
        seconds_left_range: None,
        trend: Trend::Steady,
        first: true,
        basis: "the soft limit".into(),
    }
}

fn growing(used: u64, least: f64, most: f64) -> Ceiling {
    Ceiling {
        seconds_left: Some((least + most) / 2.0),
        seconds_left_range: Some(Range { least, most: Some(most) }),
        trend: Trend::Growing,
        ..ceiling(used)
    }
}

/// Levels and changes of one ceiling, one second after the other.
struct Watch {
    levels: Levels,
    second: u64,
    changes: Vec<LevelChanged>,
}

impl Watch {
    fn new(thresholds: Thresholds) -> Self {
        Self { levels: Levels::new(thresholds), second: 0, changes: Vec::new() }
    }

    fn seconds(&mut self, seconds: u64, ceiling: &Ceiling) -> Level {
        let mut level = Level::Unknown;
        for _ in 0..seconds {
            // Each tick computes its ceilings anew.
            let mut one = [ceiling.clone()];
            self.changes.extend(self.levels.observe(Duration::from_secs(self.second), &mut one));
            self.second += 1;
            level = one[0].level;
        }
        level
    }

    fn steps(&self) -> Vec<(Level, Level)> {
        self.changes.iter().map(|change| (change.from, change.to)).collect()
    }
}

#[test]
fn the_first_sight_is_believed_and_told_only_where_there_is_something_to_see() {
    let mut far = Watch::new(Thresholds::default());
    assert_eq!(far.seconds(1, &ceiling(500)), Level::Ok);
    assert_eq!(far.steps(), []);
    let mut critical = Watch::new(Thresholds::default());
    assert_eq!(critical.seconds(1, &ceiling(960)), Level::Critical);
    assert_eq!(critical.steps(), [(Level::Unknown, Level::Critical)]);
    assert_eq!(critical.changes[0].reason, "96% of the limit is used, of 95%");
}

#[test]
fn a_spike_raises_nothing_and_a_level_that_holds_does() {
    let mut watch = Watch::new(Thresholds::default());
    watch.seconds(10, &ceiling(700));
    assert_eq!(watch.seconds(4, &ceiling(850)), Level::Ok);
    watch.seconds(1, &ceiling(700));
    assert_eq!(watch.seconds(5, &ceiling(850)), Level::Ok);
    assert_eq!(watch.seconds(1, &ceiling(850)), Level::Near);
    assert_eq!(watch.steps(), [(Level::Ok, Level::Near)]);
}

#[test]
fn a_limit_that_is_hit_needs_no_second_look() {
    let mut watch = Watch::new(Thresholds::default());
    watch.seconds(1, &ceiling(700));
    assert_eq!(watch.seconds(1, &ceiling(1_000)), Level::Critical);
}

#[test]
fn it_falls_only_when_left_clearly_and_for_long() {
    let mut watch = Watch::new(Thresholds::default());
    watch.seconds(1, &ceiling(810));
    for _ in 0..100 {
        // Wavering around the threshold, within the margin.
        watch.seconds(20, &ceiling(790));
        watch.seconds(20, &ceiling(810));
    }
    assert_eq!(watch.steps(), [(Level::Unknown, Level::Near)]);
    assert_eq!(watch.seconds(60, &ceiling(750)), Level::Near);
    watch.seconds(1, &ceiling(770));
    assert_eq!(watch.seconds(60, &ceiling(750)), Level::Near, "the clock starts over");
    assert_eq!(watch.seconds(1, &ceiling(750)), Level::Ok);
}

#[test]
fn it_falls_to_the_highest_level_in_between() {
    let mut watch = Watch::new(Thresholds::default());
    watch.seconds(1, &ceiling(960));
    watch.seconds(30, &ceiling(850));
    assert_eq!(watch.seconds(31, &ceiling(100)), Level::Near);
    assert_eq!(watch.seconds(61, &ceiling(100)), Level::Ok);
}

#[test]
fn a_forecast_raises_when_its_whole_interval_does_for_half_a_minute() {
    let mut watch = Watch::new(Thresholds::default());
    watch.seconds(10, &ceiling(600));
    assert_eq!(watch.seconds(120, &growing(600, 500.0, 4_000.0)), Level::Ok, "it may take longer");
    assert_eq!(watch.seconds(30, &growing(600, 500.0, 900.0)), Level::Ok);
    assert_eq!(watch.seconds(1, &growing(600, 500.0, 900.0)), Level::Near);
    assert_eq!(watch.changes[0].reason, "full within 15 min at the present growth, of 60 min");
    assert_eq!(watch.seconds(300, &growing(600, 3_000.0, 9_000.0)), Level::Near, "it may still be as soon");
    assert_eq!(watch.seconds(61, &ceiling(600)), Level::Ok);
}

#[test]
fn a_first_sight_does_not_believe_a_forecast_and_half_a_limit_is_far() {
    let mut watch = Watch::new(Thresholds::default());
    assert_eq!(watch.seconds(1, &growing(600, 10.0, 20.0)), Level::Ok);
    assert_eq!(watch.seconds(30, &growing(600, 10.0, 20.0)), Level::Near);
    assert_eq!(watch.seconds(100, &growing(740, 10.0, 20.0)), Level::Near, "a quarter is free");
    assert_eq!(watch.seconds(31, &growing(760, 10.0, 20.0)), Level::Critical);
    let mut young = Watch::new(Thresholds::default());
    assert_eq!(young.seconds(100, &growing(400, 10.0, 20.0)), Level::Ok);
}

#[test]
fn a_level_that_a_forecast_raised_is_not_held_by_the_use() {
    let mut watch = Watch::new(Thresholds::default());
    watch.seconds(40, &growing(930, 100.0, 200.0));
    assert_eq!(watch.steps().last(), Some(&(Level::Near, Level::Critical)));
    assert_eq!(watch.seconds(61, &ceiling(930)), Level::Near, "93% would hold a level that 95% had raised");
}

#[test]
fn connections_left_are_a_measure_of_their_own() {
    let mut thresholds = Thresholds::default();
    thresholds.connections_left.critical = Some(300);
    let mut watch = Watch::new(thresholds);
    assert_eq!(watch.seconds(1, &ceiling(700)), Level::Critical);
    assert_eq!(watch.changes[0].reason, "300 connections are left, of 300");
    assert_eq!(watch.seconds(100, &ceiling(690)), Level::Critical, "within the margin");
    assert_eq!(watch.seconds(100, &ceiling(600)), Level::Ok);
}

#[test]
fn what_becomes_unknown_does_so_after_a_while_and_is_known_again_at_once() {
    let unknown = Ceiling { used: None, utilization: None, connections_left: None, ..ceiling(0) };
    let mut watch = Watch::new(Thresholds::default());
    watch.seconds(1, &ceiling(900));
    assert_eq!(watch.seconds(1, &unknown), Level::Near, "one reading that failed");
    assert_eq!(watch.seconds(60, &unknown), Level::Unknown);
    assert_eq!(watch.changes.last().map(|change| change.reason.as_str()), Some("the soft limit"));
    assert_eq!(watch.seconds(1, &ceiling(900)), Level::Near);
}

#[test]
fn a_rate_that_is_known_from_the_second_moment_on_is_no_change() {
    let unknown = Ceiling { used: None, utilization: None, connections_left: None, ..ceiling(0) };
    let mut watch = Watch::new(Thresholds::default());
    watch.seconds(1, &unknown);
    assert_eq!(watch.seconds(1, &ceiling(100)), Level::Ok);
    assert_eq!(watch.steps(), []);
}

#[test]
fn a_ceiling_that_is_gone_is_forgotten() {
    let mut watch = Watch::new(Thresholds::default());
    watch.seconds(1, &ceiling(900));
    watch.levels.observe(Duration::from_secs(599), &mut []);
    assert_eq!(watch.levels.states.len(), 1);
    watch.levels.observe(Duration::from_secs(601), &mut []);
    assert!(watch.levels.states.is_empty());
}

#[test]
fn what_was_refused_already_is_critical_at_once_however_little_is_used() {
    let refused = Ceiling { level: Level::Critical, basis: "2 dropped".into(), ..ceiling(0) };
    let mut first = Watch::new(Thresholds::default());
    assert_eq!(first.seconds(1, &refused), Level::Critical);
    let mut later = Watch::new(Thresholds::default());
    later.seconds(10, &ceiling(0));
    assert_eq!(later.seconds(1, &refused), Level::Critical);
    assert_eq!(later.changes.last().map(|change| change.reason.as_str()), Some("2 dropped"));
    assert_eq!(later.seconds(10, &ceiling(0)), Level::Critical, "as long as any other level");
    assert_eq!(later.seconds(90, &ceiling(0)), Level::Ok);
}
