//! The long property run behind `cargo xtask fuzz`: random streams of mostly small frames, encoded by tungstenite, in
//! random cuts, some of them repeated or late, against what was encoded.
//!
//! `frames --frames N --seconds N --seed N [--stream N]`: ends at whichever of the first two comes first. Streams are
//! numbered, and each depends on the seed and its number alone, so one that failed is repeated by its number.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::tracker::{Follower, Frame, Noise, Stream};

const FRAMES_PER_STREAM: u64 = 2_000;
/// Longest packets of a stream in which some come late: the reorder buffer holds five of them.
const LONGEST_LATE: usize = 1_500;
/// Between two lines that say how far it is.
const REPORT: Duration = Duration::from_secs(10);

struct Options {
    frames: u64,
    limit: Duration,
    seed: u64,
    /// Only this stream.
    stream: Option<u64>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("frames: {error}");
            return ExitCode::from(64);
        }
    };
    println!("seed {}", options.seed);
    let begun = Instant::now();
    let (frames, failed) = run(&options, begun);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{frames} frames in {seconds:.1} s ({:.2} million a second), seed {}",
        frames as f64 / seconds / 1e6,
        options.seed
    );
    if let Some(stream) = failed {
        println!(
            "FAILED in stream {stream}; to repeat: cargo xtask fuzz --seed {} --stream {stream}",
            options.seed
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Returns frames that passed, and the stream that failed.
fn run(options: &Options, begun: Instant) -> (u64, Option<u64>) {
    let workers = match options.stream {
        Some(_) => 1,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let (next, passed) = (AtomicU64::new(options.stream.unwrap_or(0)), AtomicU64::new(0));
    let (over, failed) = (AtomicBool::new(false), Mutex::new(None));
    let work = || {
        let mut stream = Stream::default();
        while !over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if catch_unwind(AssertUnwindSafe(|| play(&mut stream, options.seed, number))).is_err() {
                over.store(true, Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(|error| error.into_inner());
                failed.get_or_insert(number);
                return;
            }
            let frames = passed.fetch_add(FRAMES_PER_STREAM, Ordering::Relaxed) + FRAMES_PER_STREAM;
            if options.stream.is_some() || frames >= options.frames || begun.elapsed() >= options.limit {
                over.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut reported = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                println!("{} frames, {:.0} s", passed.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
            }
        }
    });
    (passed.into_inner(), failed.into_inner().unwrap_or_else(|error| error.into_inner()))
}

/// One stream: encode, cut, follow, compare.
fn play(stream: &mut Stream, seed: u64, number: u64) {
    let mut random = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (masked, inbound, start) = (random.bool(), random.bool(), random.u32(..));
    let mut noise = Noise::new(random.u64(..));
    stream.clear();
    for _ in 0..FRAMES_PER_STREAM {
        stream.push(&frame(&mut random), masked, &mut noise);
    }
    let longest = [8, 60, 1_500, 65_000][random.usize(..4)];
    // A third of the streams come without a repetition, and half of those received in order.
    let repeats = [0, 4, 32][random.usize(..3)];
    let delays = if inbound && longest <= LONGEST_LATE && random.bool() { 10 } else { 0 };
    let mut follower = Follower::new(start, masked, inbound);
    let mut deliver = |from: usize, to: usize| follower.deliver(&stream.bytes, from, to);
    let (mut at, mut late) = (0, None);
    while at < stream.bytes.len() {
        let end = stream.bytes.len().min(at + random.usize(1..=longest));
        if late.is_none() && random.u32(..100) < delays {
            late = Some((at, end, random.usize(1..=5)));
            at = end;
            continue;
        }
        let repeat = random.u32(..100);
        let mut from = at;
        if repeat < repeats {
            let back = random.usize(..=at.min(3_000));
            // Either part of the packet itself, or of a copy behind it.
            if repeat.is_multiple_of(2) { from = at - back } else { deliver(at - back, at) }
        }
        deliver(from, end);
        at = end;
        late = match late {
            Some((from, to, 1)) => {
                deliver(from, to);
                None
            }
            Some((from, to, more)) => Some((from, to, more - 1)),
            None => None,
        };
    }
    if let Some((from, to, _)) = late {
        deliver(from, to);
    }
    follower.assert_exact(&stream.sent);
}

/// Mostly of 0 to 40 bytes, now and then of a length that changes the header's form, once in a while a long one.
fn frame(random: &mut fastrand::Rng) -> Frame {
    let bits = random.u32(..);
    let len = match bits & 0xff {
        0 => random.usize(120..132),
        1 => random.usize(126..1_500),
        2 if bits & 0x3f00 == 0 => random.usize(65_530..65_542),
        _ => random.usize(..=40),
    };
    Frame::new((bits >> 16) as u8, bits >> 24 & 1 == 0, bits >> 25 & 1 == 0, len)
}

fn options() -> Result<Options, String> {
    let mut options =
        Options { frames: u64::MAX, limit: Duration::MAX, seed: fastrand::u64(..), stream: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        let value: u64 = value.ok_or_else(|| format!("{name} takes a number"))?;
        match name.as_str() {
            "--frames" => options.frames = value,
            "--seconds" => options.limit = Duration::from_secs(value),
            "--seed" => options.seed = value,
            "--stream" => options.stream = Some(value),
            _ => return Err(format!("there is no option {name}")),
        }
    }
    if options.frames == u64::MAX && options.limit == Duration::MAX && options.stream.is_none() {
        return Err("say --frames or --seconds: without either it never ends".to_owned());
    }
    Ok(options)
}
