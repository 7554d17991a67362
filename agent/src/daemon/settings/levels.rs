//! The `[levels]` table of the configuration file.

use std::time::Duration;

use serde::Deserialize;

use crate::cli::parse_duration;
use crate::model::{Pair, Thresholds};

/// The table as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Levels {
    near_ratio: Option<f64>,
    critical_ratio: Option<f64>,
    near_connections_left: Option<u64>,
    critical_connections_left: Option<u64>,
    near_time_left: Option<String>,
    critical_time_left: Option<String>,
    margin: Option<f64>,
    rise_after: Option<String>,
    forecast_after: Option<String>,
    fall_after: Option<String>,
}

/// A key and what is wrong with its value.
type Refused = (&'static str, String);

impl Levels {
    /// Defaults, overridden by what is written.
    pub(super) fn thresholds(self) -> Result<Thresholds, Refused> {
        let mut thresholds = Thresholds::default();
        let Pair { near, critical } = &mut thresholds.ratio;
        (*near, *critical) = (self.near_ratio.unwrap_or(*near), self.critical_ratio.unwrap_or(*critical));
        thresholds.connections_left =
            Pair { near: self.near_connections_left, critical: self.critical_connections_left };
        for (key, text, seconds) in [
            ("levels.near_time_left", self.near_time_left, &mut thresholds.seconds_left.near),
            ("levels.critical_time_left", self.critical_time_left, &mut thresholds.seconds_left.critical),
        ] {
            if let Some(text) = text {
                // No time is left of nothing: 0 turns the measure off.
                *seconds = Some(duration(key, &text)?.as_secs_f64()).filter(|seconds| *seconds > 0.0);
            }
        }
        thresholds.margin = self.margin.unwrap_or(thresholds.margin);
        for (key, text, after) in [
            ("levels.rise_after", self.rise_after, &mut thresholds.rise_after),
            ("levels.forecast_after", self.forecast_after, &mut thresholds.forecast_after),
            ("levels.fall_after", self.fall_after, &mut thresholds.fall_after),
        ] {
            if let Some(text) = text {
                *after = duration(key, &text)?;
            }
        }
        check(&thresholds)?;
        Ok(thresholds)
    }
}

fn duration(key: &'static str, text: &str) -> Result<Duration, Refused> {
    parse_duration(text).map_err(|error| (key, error.to_string()))
}

/// Says which value makes no sense, and why.
fn check(thresholds: &Thresholds) -> Result<(), Refused> {
    let share = |key, value: f64| match value {
        value if value > 0.0 && value <= 1.0 => Ok(()),
        value => Err((key, format!("{value} is no share of a limit: more than 0, at most 1"))),
    };
    let Pair { near, critical } = thresholds.ratio;
    share("levels.near_ratio", near)?;
    share("levels.critical_ratio", critical)?;
    if near >= critical {
        return Err((
            "levels.near_ratio",
            format!("{near} must be less than critical_ratio, which is {critical}"),
        ));
    }
    if let Pair { near: Some(near), critical: Some(critical) } = thresholds.connections_left
        && near <= critical
    {
        let message = format!("{near} must be more than critical_connections_left, which is {critical}");
        return Err(("levels.near_connections_left", message));
    }
    if let Pair { near: Some(near), critical: Some(critical) } = thresholds.seconds_left
        && near <= critical
    {
        let message = format!("{near} s must be more than critical_time_left, which is {critical} s");
        return Err(("levels.near_time_left", message));
    }
    if !(0.0..=0.5).contains(&thresholds.margin) {
        return Err(("levels.margin", format!("{} is not between 0 and 0.5", thresholds.margin)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thresholds(text: &str) -> Result<Thresholds, Refused> {
        toml::from_str::<Levels>(text).expect("syntax").thresholds()
    }

    #[test]
    fn what_is_written_counts_and_the_rest_stays() {
        let defaults = Thresholds::default();
        assert_eq!(thresholds(""), Ok(defaults));
        let set = thresholds(
            "near_ratio = 0.5\nnear_connections_left = 1000\ncritical_time_left = \"2m\"\nfall_after = \"5m\"\n",
        )
        .expect("valid");
        assert_eq!(set.ratio, Pair { near: 0.5, critical: defaults.ratio.critical });
        assert_eq!(set.connections_left, Pair { near: Some(1000), critical: None });
        assert_eq!(set.seconds_left, Pair { near: defaults.seconds_left.near, critical: Some(120.0) });
        assert_eq!(set.fall_after, Duration::from_secs(300));
        assert_eq!(set.rise_after, defaults.rise_after);
    }

    #[test]
    fn nought_turns_the_time_left_off() {
        let off = thresholds("near_time_left = \"0\"\ncritical_time_left = \"0\"\n").expect("valid");
        assert_eq!(off.seconds_left, Pair { near: None, critical: None });
    }

    #[test]
    fn what_makes_no_sense_is_one_clear_line() {
        for (text, key, words) in [
            ("near_ratio = 0.95", "levels.near_ratio", "less than critical_ratio, which is 0.95"),
            ("near_ratio = 0", "levels.near_ratio", "more than 0, at most 1"),
            ("critical_ratio = 95", "levels.critical_ratio", "more than 0, at most 1"),
            ("critical_ratio = nan", "levels.critical_ratio", "more than 0, at most 1"),
            (
                "near_connections_left = 10\ncritical_connections_left = 100",
                "levels.near_connections_left",
                "more than critical_connections_left, which is 100",
            ),
            ("critical_time_left = \"2h\"", "levels.near_time_left", "more than critical_time_left"),
            ("critical_time_left = \"600\"", "levels.critical_time_left", "needs a unit"),
            ("rise_after = \"soon\"", "levels.rise_after", "is not a number"),
            ("margin = 0.9", "levels.margin", "between 0 and 0.5"),
        ] {
            let (refused, message) = thresholds(text).expect_err(text);
            assert_eq!(refused, key, "{text}");
            assert!(message.contains(words) && !message.contains('\n'), "{text}: {message}");
        }
    }
}
