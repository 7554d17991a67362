//! The fuzz targets' harness on the committed corpora and on random bytes: what fuzzing once found stays found.

mod harness;

use std::path::{Path, PathBuf};

use proptest::prelude::*;

/// Fewer than this is a corpus that went missing.
const FEW: usize = 10;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    assert!(files.len() >= FEW, "{} files in {}", files.len(), folder.display());
    files
}

#[expect(clippy::print_stdout, reason = "shown where a run panics: which file it was")]
fn replay(target: &str, run: fn(&[u8])) {
    for file in corpus(target) {
        println!("{}", file.display());
        run(&std::fs::read(&file).expect("a file"));
    }
}

#[test]
fn the_tracker_passes_its_corpus() {
    replay("tracker", harness::tracker::run);
}

#[test]
fn the_handshake_scanner_passes_its_corpus() {
    replay("handshake", harness::handshake::run);
}

/// Pieces of heads, legal and nearly so.
const PIECES: &[&str] = &[
    "HTTP/1.1 101",
    " Switching Protocols",
    "HTTP/1.1 200 OK",
    "\r\n",
    "\n",
    "\r\n\r\n",
    "Upgrade",
    "UPGRADE",
    ":",
    ": ",
    "websocket",
    "WebSocket",
    "h2c",
    "X-Upgrade",
    "Connection: Upgrade\r\n",
    "Sec-WebSocket-Extensions: ",
    "permessage-deflate",
    "foo",
    ",",
    ";",
    "; ",
    "=",
    "\"",
    "\\",
    " ",
    "\t",
    "server_max_window_bits",
    "client_max_window_bits",
    "server_no_context_takeover",
    "client_no_context_takeover",
    "8",
    "12",
    "15",
    "16",
    "0",
    "Upgrade: websocket\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n",
    "1",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn the_tracker_passes_random_scenarios(bytes in prop::collection::vec(any::<u8>(), 0..1_500)) {
        harness::tracker::run(&bytes);
    }

    #[test]
    fn the_handshake_scanner_passes_random_heads(
        cuts: u8, is_upgrade: bool, pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40), is_whole: bool,
    ) {
        let mut head = vec![cuts];
        if is_upgrade {
            head.extend(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions: ");
        }
        head.extend(pieces.iter().flat_map(|piece| piece.bytes()));
        if is_whole {
            head.extend(b"\r\n\r\n");
        }
        harness::handshake::run(&head);
    }
}
