//! Writes a recording to look at: `cargo run -p tui --example recording -- 60 > recording.jsonl`, then
//! `headroom --replay recording.jsonl`. It is the data of the tests, as many seconds of it as asked for.
#![expect(clippy::print_stdout, reason = "the recording goes to standard output")]

#[path = "../src/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod fixture;

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(31);
    print!("{}", fixture::lines(&fixture::recording(seconds)));
}
