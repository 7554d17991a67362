//! A runner of its own: libtest cannot skip a test at run time with a reason, nor run its tests strictly one after the
//! other by itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// A test's name and body.
pub(crate) type Test = (&'static str, fn() -> anyhow::Result<()>);

/// An error that means "cannot be tested here".
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Skip(pub(crate) String);

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// Runs those tests whose name contains one of the arguments that are not flags; without any, all.
pub(crate) fn run(tests: &[Test]) -> ExitCode {
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let (chosen, rest): (Vec<&Test>, Vec<&Test>) = tests
        .iter()
        .partition(|(name, _)| filters.is_empty() || filters.iter().any(|filter| name.contains(filter)));
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    println!("\nrunning {} tests", chosen.len());
    let start = Instant::now();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, body) in chosen {
        let begun = Instant::now();
        let outcome = match outcome(*body) {
            Outcome::Skipped(why) if strict => {
                Outcome::Failed(format!("skipped, which CI=true forbids: {why}"))
            }
            outcome => outcome,
        };
        let verdict = match outcome {
            Outcome::Passed => {
                passed += 1;
                "ok".to_owned()
            }
            Outcome::Failed(why) => {
                failed += 1;
                format!("FAILED: {why}")
            }
            Outcome::Skipped(why) => {
                skipped += 1;
                format!("skipped: {why}")
            }
        };
        println!("test {name} ... {verdict} ({:.1} s)", begun.elapsed().as_secs_f64());
    }
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; {} filtered out; \
         finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        rest.len(),
        start.elapsed().as_secs_f64(),
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn outcome(body: fn() -> anyhow::Result<()>) -> Outcome {
    // What the test started is killed by its guards while the panic unwinds.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) => match error.downcast_ref::<Skip>() {
            Some(Skip(why)) => Outcome::Skipped(why.clone()),
            None => Outcome::Failed(format!("{error:#}")),
        },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Outcome::Failed(
                text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned(),
            )
        }
    }
}
