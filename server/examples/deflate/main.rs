//! What compression costs: bytes a context, time a message, and resident memory of headroom-server for each connection.
//!
//! `deflate SERVER CONNECTIONS` prints three tables; SERVER is the path of headroom-server.

mod contexts;
mod crowd;
mod speed;

use std::error::Error;
use std::io::{self, Write};

use server::{limits, memory};

fn main() -> Result<(), Box<dyn Error>> {
    memory::keep_together();
    limits::raise()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, connections] = arguments.as_slice() else {
        return Err("the server's path and a number of connections?".into());
    };
    let mut out = io::stdout().lock();
    contexts::print(&mut out)?;
    writeln!(out)?;
    speed::print(&mut out)?;
    writeln!(out)?;
    crowd::print(&mut out, server, connections.parse()?)?;
    Ok(())
}

/// Bytes that look like what applications send: records with the same names and other numbers.
fn records(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut number = move |limit: u64| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    };
    let mut text = String::new();
    while text.len() < size {
        text += &format!(
            "{{\"id\":{},\"user\":\"user-{}\",\"room\":\"room-{}\",\"at\":17{:011},\"kind\":\"{}\",\"value\":{}}},",
            number(1 << 40),
            number(5_000),
            number(40),
            number(100_000_000_000),
            ["join", "leave", "message", "typing"][number(4) as usize],
            number(1 << 20)
        );
    }
    text.truncate(size);
    text.into_bytes()
}

/// This process's or another's resident memory, in bytes.
fn resident(process: &str) -> io::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    Ok(1024 * kib.ok_or_else(|| io::Error::other("no VmRSS"))?)
}
