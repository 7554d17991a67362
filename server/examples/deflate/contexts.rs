//! Bytes a context takes, counted where zlib asks for them, beside zlib's formula.

use std::error::Error;
use std::io::Write;

use agent::model::zlib::{SMALL_OBJECTS, deflate_bytes, inflate_bytes};
use server::deflate::allocated;
use server::deflate::codec::{Deflater, Inflater, Shape};

use crate::records;

/// windowBits and memLevel.
const SHAPES: [(u8, u8); 8] = [(15, 9), (15, 8), (13, 6), (12, 5), (12, 4), (11, 3), (10, 1), (9, 1)];

pub(crate) fn print(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    writeln!(out, "bytes a context, after 64 KiB: as the allocator counts what zlib asks for\n")?;
    writeln!(out, "| window bits | memLevel | deflate | zlib's formula | and small objects |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    let text = records(1, 64 << 10);
    for (bits, mem_level) in SHAPES {
        let allocated = cost(|| {
            let mut deflater = Deflater::new(Shape { bits, mem_level, level: 6 })?;
            let mut compressed = Vec::new();
            deflater.push(&text, &mut compressed)?;
            deflater.flush(&mut compressed)?;
            Ok(deflater)
        })?;
        let formula = deflate_bytes(bits, mem_level);
        let whole = formula + SMALL_OBJECTS;
        writeln!(out, "| {bits} | {mem_level} | {allocated} | {formula} | {whole} |")?;
    }
    writeln!(
        out,
        "\n| window bits | inflate, new | after 64 KiB | zlib's formula | history kept when idle |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    for bits in [15, 13, 12, 11, 10, 9] {
        let mut compressed = Vec::new();
        let mut deflater = Deflater::new(Shape { bits, mem_level: 8, level: 6 })?;
        deflater.push(&text, &mut compressed)?;
        deflater.flush(&mut compressed)?;
        let mut plain = vec![0; text.len() + 1];
        let new = cost(|| Ok(Inflater::new(bits)?))?;
        let mut inflate = || {
            let mut inflater = Inflater::new(bits)?;
            inflater.push(&compressed, &mut plain)?;
            Ok::<_, Box<dyn Error>>(inflater)
        };
        let used = cost(&mut inflate)?;
        let (formula, history) = (inflate_bytes(bits), inflate()?.history().len());
        writeln!(out, "| {bits} | {new} | {used} | {formula} | {history} |")?;
    }
    Ok(())
}

/// Bytes that what `make` makes takes.
fn cost<T>(mut make: impl FnMut() -> Result<T, Box<dyn Error>>) -> Result<usize, Box<dyn Error>> {
    let before = allocated();
    let made = make()?;
    let cost = allocated() - before;
    drop(made);
    Ok(cost)
}
