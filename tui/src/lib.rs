//! Headroom's dashboard: one more consumer of the event stream.
//!
//! Events come from a [`source`] (an agent in this process, an agent's socket, a recording), fold into a [`view`], and
//! are either drawn ([`app`] decides what, [`render`] how, `dashboard` runs the two on a terminal) or printed once
//! (`headless`). Everything from the view to the rendered buffer is pure: no clock, no terminal, no file.
//!
//! Architecture invariant: only `dashboard` and `terminal` touch the terminal, and only they and [`source`] do I/O.

pub mod app;
mod dashboard;
#[cfg(test)]
#[expect(unreachable_pub, reason = "also compiled into the integration tests and an example")]
mod fixture;
mod headless;
mod options;
pub mod render;
pub mod source;
mod svg;
mod terminal;
pub mod view;

use std::io::IsTerminal;

use agent::cli::{Exit, Failure};

pub use options::Options;

/// Runs the binary: prints once where asked to, else opens the dashboard.
pub fn run(options: Options) -> anyhow::Result<()> {
    if let Some(output) = options.headless() {
        return headless::run(&options, output);
    }
    if !std::io::stdout().is_terminal() {
        // Nobody would see a dashboard; scripts get the same data from the flags named here.
        let message = "standard output is not a terminal: use --once for text or --json for a document";
        return Err(Failure::new(Exit::Usage, message).into());
    }
    let stream = source::open(&options, options.replay_speed.unwrap_or(1.0))?;
    dashboard::run(stream)
}
