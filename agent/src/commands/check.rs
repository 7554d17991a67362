//! `headroom-agent check`: what this host allows.

use std::io::Write as _;

use agent::cli::{Exit, Failure};
use agent::document::SCHEMA;
use agent::host;
use agent::kernel::{Checked, Figures, HOOKS, Programs};
use serde::Serialize;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// What was found of one hook.
#[derive(Serialize)]
struct Outcome {
    hook: &'static str,
    /// The program that attaches there.
    program: &'static str,
    available: bool,
    required: bool,
    /// Why it is not available.
    reason: Option<String>,
    /// What is lost without it.
    loss: &'static str,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    kernel: String,
    lockdown: Option<String>,
    hooks: Vec<Outcome>,
    /// The programs that loaded, those without a hook of their own included.
    programs: Vec<Figures>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let host = host::describe();
    let checked = Programs::check();
    let outcome = |hook: &'static agent::kernel::Hook, result: Result<(), String>| Outcome {
        hook: hook.name,
        program: hook.program,
        available: result.is_ok(),
        required: hook.required,
        reason: result.err(),
        loss: hook.loss,
    };
    let (hooks, programs, error) = match checked {
        Ok(Checked { hooks, programs }) => {
            (hooks.into_iter().map(|(hook, result)| outcome(hook, result)).collect(), programs, None)
        }
        // Nothing could be tried: every hook is unavailable for the same reason.
        Err(error) => {
            let reason = error.to_string();
            (
                HOOKS.iter().map(|hook| outcome(hook, Err(reason.clone()))).collect(),
                Vec::new(),
                Some(Failure::from(error)),
            )
        }
    };
    let document = Document { schema: SCHEMA, kernel: host.kernel, lockdown: host.lockdown, hooks, programs };
    print(arguments, &document)?;
    if let Some(error) = error {
        return Err(error.into());
    }
    let missing: Vec<&str> = document
        .hooks
        .iter()
        .filter(|outcome| outcome.required && !outcome.available)
        .map(|outcome| outcome.hook)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Unavailable, format!("nothing can be measured without {}", missing.join(", ")))
        .into())
}

fn print(arguments: &Arguments, document: &Document) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut stdout, document)?;
        writeln!(stdout)?;
        return Ok(());
    }
    let lockdown = document.lockdown.as_deref().unwrap_or("not reported");
    writeln!(stdout, "kernel {}, lockdown {lockdown}", document.kernel)?;
    writeln!(stdout, "{:<26} {:<10} why not, or what it is for", "hook", "available")?;
    for outcome in &document.hooks {
        let available = if outcome.available { "yes" } else { "no" };
        let detail = match &outcome.reason {
            Some(reason) => format!("{reason}; lost: {}", outcome.loss),
            None => outcome.loss.to_owned(),
        };
        writeln!(stdout, "{:<26} {available:<10} {detail}", outcome.hook)?;
    }
    Ok(())
}
