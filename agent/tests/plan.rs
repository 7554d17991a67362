//! `headroom-agent plan` as people start it.

use std::process::{Command, Output};

fn plan(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headroom-agent"));
    command.arg("plan").args(arguments.split_whitespace()).output().expect("the binary starts")
}

/// Documents, one a line.
fn documents(arguments: &str) -> Vec<serde_json::Value> {
    let output = plan(&format!("{arguments} --json"));
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// One line on stderr that says `expected`, nothing on stdout, exit code 64.
fn refused(arguments: &str, expected: &str) {
    let output = plan(arguments);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(64), "{arguments}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments}");
    assert!(stderr.ends_with('\n') && stderr.lines().count() == 1, "{arguments}: {stderr:?}");
    assert!(stderr.contains(expected), "{arguments}: {stderr:?} does not say {expected:?}");
}

#[test]
fn each_number_of_connections_has_its_document() {
    let told = documents(
        "--connections 1M,2M --connections 10M --memory 64GB --bytes-per-connection 10KB --fd-limit 1048576 \
         --nic-speed 10G --ping-interval 30s --ping-payload 125",
    );
    let counts: Vec<_> = told.iter().map(|plan| plan["connections"].as_u64()).collect();
    assert_eq!(counts, [Some(1_000_000), Some(2_000_000), Some(10_000_000)]);
    for plan in &told {
        let first = &plan["ceilings"][0];
        assert_eq!((&first["kind"], &first["scope"]), (&"descriptors".into(), &"plan".into()));
        assert_eq!((&first["first"], &first["connections_max"]), (&true.into(), &1_048_576.into()));
        assert_eq!(first["level"], "critical");
    }
    assert_eq!(told[0]["ceilings"][0]["connections_left"], 48_576);
    assert_eq!(told[2]["ceilings"][0]["connections_left"], 0);
}

/// The ceilings are those of a snapshot: what reads the one reads the other.
#[test]
fn ceilings_have_the_snapshots_shape() {
    for plan in documents("--connections 1000 --memory 1GB --window-bits 12 --mem-level 5") {
        let ceilings: Vec<agent::document::Ceiling> =
            serde_json::from_value(plan["ceilings"].clone()).expect("the snapshot's shape");
        let memory = ceilings.first().expect("memory is known");
        assert_eq!((memory.used, memory.limit), (Some(1_000 * (3_858 + 44_032)), Some(1_000_000_000)));
        assert!(memory.parts.len() == 2 && memory.basis.contains("--bytes-per-connection"), "{memory:?}");
    }
}

#[test]
fn people_get_a_table() {
    let output = plan("--connections 2M --memory 64GB --bytes-per-connection 40KB --rtt 10ms --tls");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.starts_with("2,000,000 connections do not fit: memory first, at 1,459,254\n"), "{text}");
    assert!(text.contains("2,000,000 TCP, 2,000,000 TLS"), "{text}");
    assert!(text.contains("3 round trips, 30.0 ms"), "{text}");
}

#[test]
fn what_is_negative_is_refused() {
    for flag in ["--connections", "--fd-limit", "--streams-per-connection", "--packet-rate"] {
        refused(&format!("{flag} -5"), "\"-5\" is not a number of zero or more");
    }
    for flag in ["--memory", "--bytes-per-connection", "--kernel-bytes-per-connection"] {
        refused(&format!("{flag} -64GB"), "\"-64GB\" is not a number of zero or more");
    }
    refused("--ping-interval -30s", "\"-30s\" is not a number");
    refused("--rtt -1ms", "\"-1ms\" is not a number");
    refused("--nic-speed -10G", "\"-10G\" is not a number");
    refused("--ping-interval 1s --ping-payload -1", "--ping-payload");
    refused("--window-bits -12", "--window-bits");
}

#[test]
fn nothing_is_refused() {
    for flag in
        ["--connections", "--fd-limit", "--streams-per-connection", "--memory", "--bytes-per-connection"]
    {
        refused(&format!("{flag} 0"), "\"0\" must be more than nothing");
    }
    for flag in ["--ping-interval", "--rtt", "--reconnect-within", "--nic-speed", "--packet-rate"] {
        refused(&format!("{flag} 0"), "\"0\" must be more than nothing");
    }
    refused("--message-size 1KB --message-rate 0/s", "\"0/s\" must be more than nothing");
    // Less than the nanosecond that times are counted in.
    refused("--ping-interval 0.0000001us", "must be more than nothing");
}

#[test]
fn a_missing_unit_is_refused() {
    refused("--memory 64", "needs a unit: one of B, KB");
    refused("--bytes-per-connection 10000", "needs a unit: one of B, KB");
    refused("--ping-interval 30", "needs a unit: one of us, ms, s");
    refused("--rtt 10", "needs a unit: one of us, ms, s");
    refused("--nic-speed 10", "needs a unit: one of bit, K");
    refused("--message-size 1KB --message-rate 10", "needs a unit: one of /s, /m, /h");
    refused("--connections 5X", "needs a unit: one of K, M, or none at all");
}

#[test]
fn what_is_absurd_is_refused() {
    refused("--connections 99999999999999999999", "is too large");
    refused("--memory 99999999999999999999GB", "is too large");
    refused("--nic-speed 99999999999999999999G", "is too large");
    refused("--ping-interval 99999999999999999999d", "is too large");
    refused("--fd-limit 99999999999999999999", "is too large");
    refused("--message-rate 1/s --message-size 99TB", "is too large");
    refused("--connections 18000000000000M --bytes-per-connection 1TB", "more memory than can be counted");
    refused(
        "--connections 9000000M --kernel-bytes-per-connection 0 --ping-interval 1us",
        "more bandwidth than",
    );
    refused("--connections 1.5", "is not a whole number");
    refused("--connections many", "is not a number");
    refused("--connections 1M,,2M", "\"\" is not a number");
}

#[test]
fn what_no_protocol_has_is_refused() {
    refused("--window-bits 8", "8 is not in 9..=15");
    refused("--window-bits 16", "16 is not in 9..=15");
    refused("--mem-level 0", "0 is not in 1..=9");
    refused("--mem-level 10", "10 is not in 1..=9");
    refused("--ping-interval 1s --ping-payload 126", "at most 125 bytes");
}

#[test]
fn what_goes_together_must_come_together() {
    refused("--ping-payload 5", "--ping-interval");
    refused("--message-rate 1/s", "--message-size");
    refused("--message-size 1KB", "--message-rate");
    refused("--connections", "a value is required");
    refused("1M", "unexpected argument '1M'");
}
