//! `headroom-agent snapshot`: one document.

use std::io::Write as _;
use std::time::Duration;

use agent::cli::{Failure, parse_duration, say};
use agent::document::json;
use agent::{daemon, report};

use super::{Scope, check};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    scope: Scope,
    /// One JSON document.
    #[arg(long)]
    json: bool,
    /// A table for people; the default.
    #[arg(long, conflicts_with = "json")]
    table: bool,
    /// How long to watch before saying anything: rates and new connections need some time.
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    settle: Duration,
}

pub(crate) fn run(arguments: &Arguments, verbose: u8) -> anyhow::Result<()> {
    let settings = arguments.scope.settings(verbose)?;
    check(&settings)?;
    let attached = |hooks: &[&str]| {
        if verbose > 0 {
            say(&format!("attached: {}", hooks.join(", ")));
        }
    };
    let snapshot = daemon::snapshot(&settings, arguments.settle, attached).map_err(Failure::from)?;
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        json::write(&mut stdout, &snapshot)?;
        writeln!(stdout)?;
    } else {
        write!(stdout, "{}", report::table(&snapshot))?;
    }
    stdout.flush()?;
    Ok(())
}
