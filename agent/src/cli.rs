//! Command-line conventions that every Headroom binary shares: exit codes, one-line errors, units.

mod exit;
mod units;

pub use exit::{Exit, Failure, parse, run, say};
pub use units::{Rate, UnitError, parse_count, parse_duration, parse_frequency, parse_rate, parse_size};
