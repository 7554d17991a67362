//! What the packet programs cost: nanoseconds a packet, and what is left of the echo rate.
//!
//! Rounds are rotated, so that a machine that slows down slows everything down; ratios are taken within a round and
//! reported as median and spread. Run through `cargo xtask bench packet`.
#![expect(clippy::print_stdout, reason = "the report")]

mod echo;

use std::time::Duration;

use agent::kernel::{Options, Programs, Runs, Statistics};
use echo::Rig;

const ROUNDS: usize = 9;
const WINDOW: Duration = Duration::from_millis(1500);
const SETTLE: Duration = Duration::from_millis(300);
const REPEAT: u32 = 1_000_000;

/// What is attached while the echo runs.
#[derive(Clone, Copy, PartialEq)]
enum Variant {
    None,
    Empty,
    Tracked,
    /// The agent, told to look at another port: every packet takes the path of traffic that is not WebSocket.
    Untracked,
}

fn main() {
    // `cargo bench` passes flags of its own; there is nothing to choose here.
    if let Err(error) = run() {
        println!("packet bench: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    test_run()?;
    let variants = [Variant::None, Variant::Empty, Variant::Tracked, Variant::Untracked];
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    for round in 0..ROUNDS {
        for step in 0..variants.len() {
            let index = (round + step) % variants.len();
            rates[index].push(rate(variants[index])?);
            costs[index].extend(nanoseconds(variants[index])?);
        }
    }
    println!(
        "live echo, 125-byte messages, both ends on this host, {ROUNDS} rotated rounds (median, least–most)"
    );
    let empty = &costs[1];
    for (name, index) in [("empty program", 1), ("tracked", 2), ("untracked", 3)] {
        let net: Vec<f64> = costs[index].iter().zip(empty).map(|(cost, empty)| cost - empty).collect();
        println!(
            "  ns a packet, {name:<14} {}   above the empty program {}",
            spread(&costs[index]),
            spread(&net)
        );
    }
    for (name, index) in [("no agent", 0), ("empty program", 1), ("agent", 2)] {
        let ratio: Vec<f64> = rates[index].iter().zip(&rates[0]).map(|(rate, none)| rate / none).collect();
        println!("  echoes/s, {name:<14} {}   of no agent {}", spread(&rates[index]), spread(&ratio));
    }
    Ok(())
}

fn attach(variant: Variant) -> Result<Option<Programs>, Box<dyn std::error::Error>> {
    Ok(match variant {
        Variant::None => None,
        Variant::Empty => Some(Programs::load_empty()?),
        Variant::Tracked => Some(Programs::load(&Options::default())?),
        // Nobody serves on port 1.
        Variant::Untracked => Some(Programs::load(&Options { ports: vec![1], ..Options::default() })?),
    })
}

/// Round trips per second, statistics off.
fn rate(variant: Variant) -> Result<f64, Box<dyn std::error::Error>> {
    let programs = attach(variant)?;
    let rig = Rig::start()?;
    std::thread::sleep(SETTLE);
    let rate = rig.measure(WINDOW);
    rig.stop();
    drop(programs);
    Ok(rate)
}

/// Nanoseconds a packet by the kernel's run-time statistics; they cost some 20 ns a run themselves, which the empty
/// program shows.
fn nanoseconds(variant: Variant) -> Result<Option<f64>, Box<dyn std::error::Error>> {
    let Some(programs) = attach(variant)? else {
        return Ok(None);
    };
    let rig = Rig::start()?;
    std::thread::sleep(SETTLE);
    let runs = |programs: &Programs| -> Runs {
        if variant == Variant::Empty { programs.empty_runs() } else { programs.packet_runs() }
    };
    let statistics = Statistics::enable()?;
    let before = runs(&programs);
    std::thread::sleep(WINDOW);
    let cost = runs(&programs).since(before).nanoseconds();
    drop(statistics);
    rig.stop();
    Ok(cost)
}

/// The programs alone, on packets of a socket that is not tracked.
fn test_run() -> Result<(), Box<dyn std::error::Error>> {
    let mut agent = Programs::load(&Options::default())?;
    let mut empty = Programs::load_empty()?;
    println!("TestRun, one core, {REPEAT} runs (median, least–most)");
    let packets = [("data packet of 125 bytes", packet(125)), ("pure ACK", packet(0))];
    for (name, packet) in packets {
        let mut cost = Vec::new();
        let mut base = Vec::new();
        for _ in 0..ROUNDS {
            base.push(empty.test_run(true, &packet, REPEAT)? as f64);
            cost.push(agent.test_run(false, &packet, REPEAT)? as f64);
        }
        println!("  ns, untracked {name:<26} {}   empty program {}", spread(&cost), spread(&base));
    }
    Ok(())
}

/// An Ethernet frame with an IPv4 TCP segment of `len` bytes.
fn packet(len: usize) -> Vec<u8> {
    let mut frame = vec![0u8; 14 + 20 + 20 + len];
    frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    let ip = &mut frame[14..];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(40 + len as u16).to_be_bytes());
    ip[8] = 64;
    ip[9] = 6;
    ip[12..16].copy_from_slice(&[127, 0, 0, 1]);
    ip[16..20].copy_from_slice(&[127, 0, 0, 1]);
    ip[32] = 5 << 4;
    frame
}

fn spread(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
        return "–".into();
    };
    let digits = if *most < 10.0 { 3 } else { 1 };
    format!("{:.digits$} ({least:.digits$}–{most:.digits$})", sorted[sorted.len() / 2])
}
