//! Processor time a message takes, with a context that is reset for each (no context takeover) and with one that goes on.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use server::deflate::codec::{Deflater, Inflater, Shape, TAIL};

use crate::records;

const MESSAGES: usize = 2_000;

type Messages = Vec<Vec<u8>>;

/// windowBits, memLevel and level.
const SHAPES: [(u8, u8, u8); 8] =
    [(15, 8, 6), (15, 8, 1), (12, 5, 6), (12, 5, 3), (12, 5, 1), (11, 3, 1), (9, 1, 6), (9, 1, 1)];

pub(crate) fn print(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    writeln!(out, "µs of processor time a message: {MESSAGES} messages of JSON records, one thread\n")?;
    writeln!(
        out,
        "| size | window bits | memLevel | level | reset, deflate | inflate | smaller by | with takeover: deflate | smaller by |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
    for size in [125, 637, 8_192] {
        let messages: Messages = (0..MESSAGES as u64).map(|seed| records(seed, size)).collect();
        for (bits, mem_level, level) in SHAPES {
            let shape = Shape { bits, mem_level, level };
            let (reset, packed) = deflate(shape, &messages, true)?;
            let inflate = inflate(&packed, size)?;
            let (takeover, chained) = deflate(shape, &messages, false)?;
            let share = |packed: &[Vec<u8>]| {
                let bytes: usize = packed.iter().map(Vec::len).sum();
                100.0 - 100.0 * bytes as f64 / (size * MESSAGES) as f64
            };
            writeln!(
                out,
                "| {size} | {bits} | {mem_level} | {level} | {reset:.1} | {inflate:.1} | {:.0}% | {takeover:.1} | {:.0}% |",
                share(&packed),
                share(&chained)
            )?;
        }
    }
    Ok(())
}

/// Microseconds a message, and the messages.
fn deflate(shape: Shape, messages: &Messages, reset: bool) -> Result<(f64, Messages), Box<dyn Error>> {
    let mut deflater = Deflater::new(shape)?;
    let mut packed: Messages = messages.iter().map(|message| Vec::with_capacity(message.len())).collect();
    let start = now();
    for (message, packed) in messages.iter().zip(&mut packed) {
        if reset {
            deflater.reset();
        }
        deflater.push(message, packed)?;
        deflater.flush(packed)?;
        packed.truncate(packed.len() - TAIL.len());
    }
    Ok((micros(start), packed))
}

fn inflate(packed: &[Vec<u8>], size: usize) -> Result<f64, Box<dyn Error>> {
    let mut inflater = Inflater::new(15)?;
    let mut plain = vec![0; size + 1];
    let start = now();
    for packed in packed {
        inflater.reset();
        let made = inflater.push(packed, &mut plain)?.made;
        inflater.finish(&TAIL, &mut plain[made..])?;
    }
    Ok(micros(start))
}

/// Processor time of this thread: others may have work to do.
fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Never negative.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn micros(start: Duration) -> f64 {
    (now() - start).as_secs_f64() * 1e6 / MESSAGES as f64
}
