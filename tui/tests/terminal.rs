//! The binary as its users meet it: pipes, a real pseudo-terminal, signals.
//!
//! `script` (in every base system) makes the pseudo-terminal and records what is written to it.

#[path = "../src/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "the unit tests use the rest")]
mod fixture;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HEADROOM: &str = env!("CARGO_BIN_EXE_headroom");
const ENTER_ALTERNATE_SCREEN: &str = "\x1b[?1049h";
const LEAVE_ALTERNATE_SCREEN: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

fn recording(directory: &Path) -> PathBuf {
    let path = directory.join("recording.jsonl");
    std::fs::write(&path, fixture::lines(&fixture::recording(5))).expect("written");
    path
}

fn headroom(arguments: &[&str]) -> Output {
    Command::new(HEADROOM).args(arguments).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `command` in a shell on a pseudo-terminal, asks the terminal for its settings afterwards, returns all output.
fn on_terminal(command: &str) -> String {
    let line = format!("stty rows 24 cols 80; {command}; echo status=$?; stty -a");
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").output();
    text(&output.expect("script runs").stdout)
}

fn assert_restored(output: &str) {
    let entered = output.find(ENTER_ALTERNATE_SCREEN).expect("the dashboard was shown");
    let left = output.rfind(LEAVE_ALTERNATE_SCREEN).expect("the alternate screen was left");
    assert!(entered < left);
    assert!(output[left..].contains(SHOW_CURSOR), "the cursor is back: {output:?}");
    for setting in ["icanon", "echo", "isig", "opost"] {
        let set = output[left..].split_whitespace().any(|word| word == setting);
        assert!(set, "{setting} is set again: {output:?}");
    }
}

#[test]
fn a_pipe_is_refused_with_the_way_out() {
    let output = headroom(&["--replay", "/dev/null"]);
    assert_eq!(output.status.code(), Some(64));
    let message = text(&output.stderr);
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("--once") && message.contains("--json"), "{message}");
    assert!(output.stdout.is_empty());
}

#[test]
fn once_and_json_print_a_recording() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = recording(directory.path());
    let path = path.to_str().expect("a plain path");
    let once = headroom(&["--replay", path, "--once"]);
    assert!(once.status.success());
    assert!(text(&once.stdout).contains("descriptors first: 18,276 of 20,000, 1,724 connections left"));
    let json = headroom(&["--replay", path, "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).expect("a document");
    assert_eq!(document["schema"], "headroom/1");
}

#[test]
fn a_bad_recording_is_a_configuration_error_with_a_line_number() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = recording(directory.path());
    let good = std::fs::read_to_string(&path).expect("read");
    std::fs::write(&path, format!("{good}nonsense\n")).expect("written");
    let output = headroom(&["--replay", path.to_str().expect("a plain path"), "--once"]);
    assert_eq!(output.status.code(), Some(78));
    let message = text(&output.stderr);
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains(&format!("line {}", good.lines().count() + 1)), "{message}");
}

#[test]
fn signals_end_it_and_the_terminal_is_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = recording(directory.path());
    for (signal, status) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        // `timeout` is the sender; in the foreground, because the dashboard reads the terminal.
        let output = on_terminal(&format!(
            "timeout --foreground --preserve-status -s {signal} 1 {HEADROOM} --replay {}",
            path.display()
        ));
        assert_restored(&output);
        assert!(output.contains("descriptors"), "something was drawn: {output:?}");
        assert!(output.contains(&format!("status={status}")), "{signal}: {output:?}");
    }
}
