//! Autobahn|Testsuite: installed into the target directory, run, watched.
//!
//! It is written for Python 2.7. virtualenv is the last tool that makes an environment for that; it runs on Python 3.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use crate::process::{Running, Stop};
use crate::skip::Skip;
use crate::verbs::target_dir;

/// The last version that makes environments for Python 2.7.
const VIRTUALENV: &str = "virtualenv==20.21.1";
const VERSION: &str = "25.10.1";

/// The longest case may take 480 s by its own rules.
const CASE: Duration = Duration::from_secs(600);
/// Between two lines that say how far it is.
const REPORT: Duration = Duration::from_secs(20);

/// The suite's program, installed where it is not.
pub(super) fn program(stop: &Stop) -> anyhow::Result<PathBuf> {
    let folder = target_dir().join("autobahn");
    let program = folder.join("bin/wstest");
    if installed(&folder) {
        return Ok(program);
    }
    let python = python2()?;
    println!("installing Autobahn|Testsuite {VERSION} into {}", folder.display());
    let host = target_dir().join("autobahn-host");
    for old in [&folder, &host] {
        if old.exists() {
            std::fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
        }
    }
    run(stop, Command::new("python3").args(["-m", "venv"]).arg(&host))?;
    run(stop, Command::new(host.join("bin/python")).args(["-m", "pip", "install", "--quiet", VIRTUALENV]))?;
    let mut environment = Command::new(host.join("bin/python"));
    run(stop, environment.args(["-m", "virtualenv", "--quiet", "--python"]).arg(python).arg(&folder))?;
    let mut install = Command::new(folder.join("bin/python"));
    run(stop, install.args(["-m", "pip", "install", "--quiet", &format!("autobahntestsuite=={VERSION}")]))?;
    ensure!(installed(&folder), "the suite was installed, but does not say that it is version {VERSION}");
    Ok(program)
}

/// Makes a certificate with the library that the suite speaks TLS with, and returns the server's flags for it.
pub(super) fn certificate(stop: &Stop, folder: &Path) -> anyhow::Result<Vec<String>> {
    let python = program(stop)?.with_file_name("python");
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    run(stop, Command::new(python).args(["-c", CERTIFICATE]).args([&certificate, &key]))?;
    let text = |path: PathBuf| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
    Ok(vec!["--tls-certificate".into(), text(certificate)?, "--tls-key".into(), text(key)?])
}

/// For localhost, for a day, signed by itself.
const CERTIFICATE: &str = "
import sys
from OpenSSL import crypto
key = crypto.PKey()
key.generate_key(crypto.TYPE_RSA, 2048)
cert = crypto.X509()
cert.set_version(2)
cert.set_serial_number(1)
cert.get_subject().CN = 'localhost'
cert.set_issuer(cert.get_subject())
cert.gmtime_adj_notBefore(-3600)
cert.gmtime_adj_notAfter(86400)
cert.set_pubkey(key)
cert.add_extensions([crypto.X509Extension(b'subjectAltName', False, b'DNS:localhost,IP:127.0.0.1')])
cert.sign(key, 'sha256')
open(sys.argv[1], 'wb').write(crypto.dump_certificate(crypto.FILETYPE_PEM, cert))
open(sys.argv[2], 'wb').write(crypto.dump_privatekey(crypto.FILETYPE_PEM, key))
";

fn installed(environment: &Path) -> bool {
    let script = format!(
        "import pkg_resources as p, sys; sys.exit(p.get_distribution('autobahntestsuite').version != '{VERSION}')"
    );
    succeeds(Command::new(environment.join("bin/python")).args(["-c", &script]))
}

/// A Python 2.7 that runs: the one of the path, or one of pyenv's.
fn python2() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let roots = [std::env::var_os("PYENV_ROOT").map(PathBuf::from), home.map(|home| home.join(".pyenv"))];
    let mut found: Vec<PathBuf> = roots
        .into_iter()
        .flatten()
        .filter_map(|root| std::fs::read_dir(root.join("versions")).ok())
        .flat_map(|versions| versions.flatten())
        .filter(|version| version.file_name().to_string_lossy().starts_with("2.7"))
        .map(|version| version.path().join("bin/python2.7"))
        .collect();
    // Of several the latest; pyenv's own command by this name refuses when the version is not a selected one.
    found.sort();
    found.push("python2.7".into());
    let works = |python: &PathBuf| succeeds(Command::new(python).args(["-c", "import ssl, zlib"]));
    found.into_iter().find(works).ok_or_else(|| {
        Skip("Autobahn|Testsuite needs Python 2.7: install it (pyenv install 2.7.18)".into()).into()
    })
}

fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn run(stop: &Stop, command: &mut Command) -> anyhow::Result<()> {
    // pip for Python 2.7 has much to say about its age.
    command.env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("PYTHONWARNINGS", "ignore");
    let status = Running::start(command)?.wait(stop)?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// Runs `cases` against the server at `url` and returns the text of the report's index. The report goes to `folder`.
pub(super) fn fuzz(
    stop: &Stop,
    program: &Path,
    folder: &Path,
    url: &str,
    cases: &[String],
) -> anyhow::Result<String> {
    let report = folder.join("report");
    if report.exists() {
        std::fs::remove_dir_all(&report)?;
    }
    let specification = json!({
        "outdir": report,
        "servers": [{ "agent": "server", "url": url }],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let path = folder.join("specification.json");
    std::fs::write(&path, specification.to_string())?;
    let log = folder.join("wstest.log");
    let mut command = Command::new(program);
    command.args(["--mode", "fuzzingclient", "--spec"]).arg(&path);
    command.env("PYTHONUNBUFFERED", "1");
    command.stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?);
    let mut running = Running::start(&mut command)?;
    let mut progress = Progress::new(&log);
    let status = loop {
        stop.check()?;
        if let Some(status) = running.child.try_wait()? {
            break status;
        }
        progress.look()?;
        std::thread::sleep(Duration::from_millis(50));
    };
    ensure!(status.success(), "the suite ended with {status}; see {}", log.display());
    // The suite ends well even where it could not connect; then there is no report.
    let index = report.join("index.json");
    std::fs::read_to_string(&index)
        .with_context(|| format!("the suite wrote no {}; see {}", index.display(), log.display()))
}

/// Which case is running, by the suite's log.
struct Progress {
    log: PathBuf,
    case: String,
    begun: Instant,
    since: Instant,
    said: Instant,
}

impl Progress {
    fn new(log: &Path) -> Self {
        let now = Instant::now();
        Self { log: log.into(), case: String::new(), begun: now, since: now, said: now }
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let lines = BufReader::new(File::open(&self.log)?).lines().map_while(Result::ok);
        let case = lines.filter_map(|line| running_case(&line)).last().unwrap_or_default();
        if case != self.case {
            (self.case, self.since) = (case, Instant::now());
        }
        if self.since.elapsed() > CASE {
            bail!("the suite is at case {:?} for {} s", self.case, CASE.as_secs());
        }
        if self.said.elapsed() > REPORT {
            println!("  at case {} after {:.0} s", self.case, self.begun.elapsed().as_secs_f64());
            self.said = Instant::now();
        }
        Ok(())
    }
}

/// From "Running test case ID 1.1.1 for agent …".
fn running_case(line: &str) -> Option<String> {
    let rest = line.strip_prefix("Running test case ID ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_case_is_read_off_the_log() {
        let line = "Running test case ID 13.7.16 for agent headroom from peer tcp4:127.0.0.1:19001";
        assert_eq!(running_case(line).as_deref(), Some("13.7.16"));
        assert_eq!(running_case("Autobahn Fuzzing WebSocket Client"), None);
    }
}
