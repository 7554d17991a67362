//! `headroom`: the dashboard.

use std::process::ExitCode;

fn main() -> ExitCode {
    match agent::cli::parse::<tui::Options>() {
        Ok(options) => agent::cli::run("headroom", || tui::run(options)),
        Err(code) => code,
    }
}
