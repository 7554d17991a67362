//! Clients that others wrote: Node's `http2`, Python's `h2`, and Chromium with a page that the server ships.
//!
//! What a client needs is found or made here; where that fails the test says so and passes, except under CI=true.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::http2::client::Peer;
use crate::support::{PATIENCE, Process, TestServer, bounded};
use crate::tls::Identity;

/// What h2.py is written against.
const PACKAGES: &[&str] = &["h2>=4.1,<5"];

/// Where this folder's scripts are.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/foreign").join(name)
}

/// Whether `command` succeeds; what it says goes nowhere.
fn works(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// Says that a test cannot run here.
#[expect(clippy::print_stderr, reason = "the reader of a test's output is to know")]
fn skip(lack: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{lack}");
    eprintln!("skipped: {lack}");
}

/// A Python with the packages, in the target directory; the first call makes it.
fn python() -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("http2-venv");
    let python = environment.join("bin/python");
    if !works(Command::new(&python).args(["-c", "import h2.connection"])) {
        let made = works(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))
            && works(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES));
        if !made {
            return None;
        }
    }
    Some(python)
}

/// Runs a script to its end: it exits with 0 when all went as it should, and says what it found.
fn run(program: &Path, script: &Path, arguments: &[&str]) {
    let mut command = Command::new(program);
    if program.ends_with("python") {
        // No compiled modules beside the scripts.
        command.arg("-B");
    }
    command.arg(script).args(arguments);
    let ended = Process::spawn(command).end();
    assert!(ended.status.success(), "{} {}", ended.stdout, ended.stderr);
    assert_eq!(ended.stdout, "passed\n", "{}", ended.stderr);
}

/// Runs the script without TLS and with it, and looks whether the server counted its WebSockets as what they are.
fn both(program: &Path, name: &str, websockets: u32) {
    let identity = Identity::new();
    let (server, secure) = identity.serve(&["--idle-after", "50ms"]);
    let certificate = identity.certificate();
    run(program, &script(name), &[server.address()]);
    let secure = secure.replace("127.0.0.1", "localhost");
    run(program, &script(name), &[&secure, certificate.to_str().unwrap()]);
    for over in ["HTTP/2", "HTTP/2 over TLS"] {
        opened(&server, over, websockets);
    }
}

/// Asserts how many WebSockets there were and that none is left.
fn opened(server: &TestServer, over: &str, count: u32) {
    bounded(async {
        let deadline = Instant::now() + PATIENCE;
        let peer = Peer::connect(server.address()).await;
        loop {
            let (_, page) = peer.get("/").await;
            if page.contains(&format!("<th>{over}<td>0<td>{count}\n")) {
                break;
            }
            assert!(Instant::now() < deadline, "{over}: {page}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn node() {
    if !works(Command::new("node").arg("--version")) {
        return skip("there is no node (Debian: apt-get install nodejs)");
    }
    both(Path::new("node"), "h2.js", 3);
}

#[test]
fn python_h2() {
    let Some(python) = python() else {
        return skip("no Python environment with h2 (Debian: apt-get install python3-venv)");
    };
    both(&python, "h2.py", 3);
}

#[test]
fn chromium() {
    if !works(Command::new("chromium").arg("--version")) {
        return skip("there is no chromium (Debian: apt-get install chromium)");
    }
    let identity = Identity::new();
    let (server, address) = identity.serve(&[]);
    let profile = tempfile::TempDir::new().unwrap();
    let port = address.rsplit(':').next().unwrap();
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        // What the page says reaches standard error; the certificate was made a moment ago.
        .args(["--enable-logging=stderr", "--ignore-certificate-errors"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("https://localhost:{port}/test"));
    let browser = Process::spawn(command);
    let mut said = Vec::new();
    let deadline = Instant::now() + 2 * PATIENCE;
    let passed = loop {
        match browser.error_line_by(deadline) {
            Some(line) if line.contains("passed: 5 messages") => break true,
            Some(line) if line.contains("failed: ") => break false,
            Some(line) => said.push(line),
            None => break false,
        }
    };
    // Its own processes end with the first.
    browser.signal(rustix::process::Signal::TERM);
    assert!(passed, "{}", said.join("\n"));
    assert!(said.iter().any(|line| line.contains("the page came by h2")), "{}", said.join("\n"));
    browser.end();
    opened(&server, "HTTP/2 over TLS", 1);
    opened(&server, "HTTP/1.1 over TLS", 0);
}
