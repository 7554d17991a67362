//! Processes that cannot outlive their test, and bounded waits on them.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use server::load::report::Report;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_headroom-server");
pub(crate) const LOAD: &str = env!("CARGO_BIN_EXE_headroom-load");

/// No step of any test takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A child process that is killed and reaped on drop, also when the test panics.
pub(crate) struct Process {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
}

/// How a process ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Process {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).env_remove("RUST_LOG");
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The next line on standard output.
    pub(crate) fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("a line on stdout")
    }

    /// The next line on standard error.
    pub(crate) fn error_line(&self) -> String {
        self.error_line_by(Instant::now() + PATIENCE).expect("a line on stderr")
    }

    /// The next line on standard error; `None` at its end or at `deadline`.
    pub(crate) fn error_line_by(&self, deadline: Instant) -> Option<String> {
        self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// How many descriptors each of its epoll sets watches.
    pub(crate) fn watched(&self) -> Vec<usize> {
        let folder = format!("/proc/{}/fdinfo", self.child.id());
        let descriptors = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let watched = descriptors.map(|path| std::fs::read_to_string(path).unwrap_or_default());
        watched.map(|text| text.matches("tfd:").count()).filter(|count| *count > 0).collect()
    }

    /// The most memory it ever had resident, in bytes.
    pub(crate) fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        1024 * line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            thread::sleep(Duration::from_millis(10));
        };
        let text = |lines: &mpsc::Receiver<String>| {
            let mut text = String::new();
            while let Ok(line) = lines.recv_timeout(PATIENCE) {
                text += &line;
                text.push('\n');
            }
            text
        };
        Ended { status, stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Asserts the exit code and that exactly one line, containing `text`, explains it.
    pub(crate) fn expect_failure(&self, code: i32, text: &str) {
        assert_eq!(self.status.code(), Some(code), "stderr: {}", self.stderr);
        assert_eq!(self.stdout, "");
        let complaints: Vec<&str> = self.stderr.lines().filter(|line| !line.contains(" INFO ")).collect();
        assert!(matches!(complaints[..], [line] if line.contains(text)), "stderr: {}", self.stderr);
    }

    /// The load generator's result: one line on standard output.
    pub(crate) fn report(&self) -> Report {
        assert_eq!(self.status.code(), Some(0), "stderr: {}", self.stderr);
        assert_eq!(self.stdout.lines().count(), 1, "stdout: {}", self.stdout);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A running server.
pub(crate) struct TestServer {
    pub(crate) process: Process,
    /// `ws://127.0.0.1:PORT`
    pub(crate) url: String,
}

impl TestServer {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let process = Process::start(SERVER, &[&["--listen", "ws://127.0.0.1:0"], arguments].concat());
        let line = process.line();
        let url = line.strip_prefix("listening on ").expect("the line that says where").to_owned();
        Self { process, url }
    }

    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("ws://").unwrap()
    }

    pub(crate) async fn connect(&self, path: &str) -> Client {
        self.try_connect(path).await.unwrap()
    }

    pub(crate) async fn try_connect(
        &self,
        path: &str,
    ) -> Result<Client, tokio_tungstenite::tungstenite::Error> {
        let url = format!("{}{path}", self.url);
        let connecting = tokio_tungstenite::connect_async(url);
        tokio::time::timeout(PATIENCE, connecting).await.expect("an answer").map(|(client, _)| client)
    }
}

/// Connects to a server that is only just starting.
pub(crate) async fn connect_when_possible(url: &str) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout(PATIENCE, tokio_tungstenite::connect_async(url)).await.expect("an answer")
        {
            Ok((client, _)) => return client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs an async test, bounded.
pub(crate) fn bounded<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(3 * PATIENCE, test).await.expect("the test ends") })
}

/// Reads on a thread, so that a full pipe never stops the process and waiting can be bounded.
fn lines(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
