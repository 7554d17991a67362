//! The long run behind `cargo xtask fuzz --bytes`: messages of payloads that look like frames, followed from their middle on
//! and in any packets. Nothing may be taken for a frame that is none.
//!
//! `payloads --bytes N [--seed N]`: so many bytes of each kind of payload, masked and not.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

#[path = "../tests/harness/bulk.rs"]
mod bulk;
#[path = "../tests/harness/mod.rs"]
mod harness;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bulk::{Bulk, KINDS};

fn main() -> ExitCode {
    let (mut bytes, mut seed) = (None, fastrand::u64(..));
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value: Option<u64> = arguments.next().and_then(|value| value.parse().ok());
        match (name.as_str(), value) {
            ("--bytes", Some(value)) => bytes = Some(value),
            ("--seed", Some(value)) => seed = value,
            _ => {
                eprintln!("payloads: --bytes N [--seed N], not {name} {value:?}");
                return ExitCode::from(64);
            }
        }
    }
    let Some(bytes) = bytes else {
        eprintln!("payloads: say --bytes: how many of each kind");
        return ExitCode::from(64);
    };
    println!("seed {seed}");
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some((kind, name)) = KINDS.get(number / 2) else { return };
                    let masked = number % 2 == 0;
                    let begun = Instant::now();
                    let done = catch_unwind(AssertUnwindSafe(|| follow(*kind, masked, seed, bytes)));
                    let what = format!("{name}, {}", if masked { "masked" } else { "unmasked" });
                    match done {
                        Ok(trials) => println!(
                            "{what}: {bytes} bytes in {trials} streams, {:.0} s: no frame was invented",
                            begun.elapsed().as_secs_f64()
                        ),
                        Err(_) => failed.lock().unwrap_or_else(|error| error.into_inner()).push(what),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(|error| error.into_inner());
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("FAILED: {}; to repeat: cargo xtask fuzz --bytes {bytes} --seed {seed}", failed.join("; "));
    ExitCode::FAILURE
}

/// Returns how many streams it took.
fn follow(kind: bulk::Kind, masked: bool, seed: u64, bytes: u64) -> u64 {
    let mut bulk = Bulk::new(kind, masked, seed);
    let (mut done, mut trials) = (0, 0);
    while done < bytes {
        done += bulk.trial();
        trials += 1;
    }
    trials
}
