//! `headroom-agent check`: what this host allows.

use std::io::Write as _;

use agent::cli::{Exit, Failure};
use agent::document::{SCHEMA, json};
use agent::host;
use agent::kernel::{Checked, Figures, HOOKS, Options, Programs};
use agent::report::Report;
use serde::Serialize;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
    /// Go on where only a part of the host's cgroups can be seen, as in most containers.
    #[arg(long)]
    this_cgroup: bool,
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
    let checked = Programs::check(&Options { this_cgroup: arguments.this_cgroup, ..Options::default() });
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
        json::write(&mut stdout, document)?;
        writeln!(stdout)?;
        return Ok(());
    }
    write!(stdout, "{}", table(document))?;
    Ok(())
}

fn table(document: &Document) -> Report {
    let mut text = Report::new();
    let lockdown = document.lockdown.as_deref().unwrap_or("not reported");
    text.line(format_args!("kernel {}, lockdown {lockdown}", document.kernel));
    text.line(format_args!("{:<26} {:<10} why not, or what it is for", "hook", "available"));
    for outcome in &document.hooks {
        let available = if outcome.available { "yes" } else { "no" };
        let detail = match &outcome.reason {
            Some(reason) => format!("{reason}; lost: {}", outcome.loss),
            None => outcome.loss.to_owned(),
        };
        text.line(format_args!("{:<26} {available:<10} {detail}", outcome.hook));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_shown_and_not_obeyed() {
        let hook = Outcome {
            hook: "cgroup_skb/ingress",
            program: "headroom_ingress",
            available: false,
            required: true,
            reason: Some("no\x1b[2J such\nthing\u{9b}".into()),
            loss: "everything",
        };
        let document = Document {
            schema: SCHEMA,
            kernel: "6.1\x1b]0;owned\x07".into(),
            lockdown: Some("\u{202e}".into()),
            hooks: vec![hook],
            programs: Vec::new(),
        };
        let text = table(&document).to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains(|c| agent::terminal::is_obeyed(c) && c != '\n'), "{text:?}");
    }
}
