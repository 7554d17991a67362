//! The servers that are driven into limits.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Context as _;

use crate::binaries;
use crate::process::Process;
use crate::python;
use crate::servers::NODE_PATH;
use crate::wire::Namespace;

/// Which server, and what its connections do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// headroom-server, idle connections.
    Reference,
    /// headroom-server, each connection sends 8 KiB and gets them back, every few seconds.
    ReferenceWithMessages,
    /// PyPI's `websockets`, idle.
    Python,
    /// The same with compression, each connection sends a compressed message and gets one.
    PythonDeflate,
    /// The same without, each connection is sent more than it reads.
    PythonFlood,
    /// Node's `ws`, idle.
    Node,
    /// The same with compression.
    NodeDeflate,
}

/// How a server is started: through a command, in a namespace, at an address.
#[derive(Default)]
pub(super) struct Wrapped<'a> {
    pub(super) command: Vec<String>,
    pub(super) namespace: Option<&'a Namespace>,
    pub(super) host: Option<&'a str>,
    pub(super) arguments: &'a [&'a str],
}

impl Wrapped<'_> {
    /// A shell says something first.
    pub(super) fn by_shell(first: &str) -> Self {
        Self::by(&["sh", "-c", &format!("{first} && exec \"$0\" \"$@\"")])
    }

    pub(super) fn by(command: &[&str]) -> Self {
        Self { command: command.iter().map(|word| (*word).to_owned()).collect(), ..Self::default() }
    }

    /// The command as it is started.
    pub(super) fn around(&self, inner: &Command) -> Command {
        let words = self.command.iter().map(|word| word.into());
        let mut words = words.chain([inner.get_program().to_owned()]).chain(inner.get_args().map(Into::into));
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }
}

impl Server {
    /// Starts it and waits until it listens.
    pub(super) fn start(self, how: &Wrapped<'_>) -> anyhow::Result<(Process, SocketAddr)> {
        let host = how.host.unwrap_or("127.0.0.1");
        let (mut command, said) = match self {
            Server::Reference | Server::ReferenceWithMessages => {
                let mut command = Command::new(binaries::path("headroom-server")?);
                command.args(["--listen", &format!("ws://{host}:0"), "--no-raise-fd-limit"]);
                (command, "listening on ws://")
            }
            Server::Python | Server::PythonDeflate | Server::PythonFlood => {
                let mut command = Command::new(python::interpreter()?);
                let compression = if self == Server::PythonDeflate { "deflate" } else { "none" };
                let flood = if self == Server::PythonFlood { "200000" } else { "0" };
                command.arg("-B").arg(python::path("echo.py")).args([host, "0", compression, flood]);
                (command, "listening ")
            }
            Server::Node | Server::NodeDeflate => {
                let mut command = Command::new("node");
                let compression = if self == Server::NodeDeflate { "takeover" } else { "none" };
                command.arg(python::path("echo.js")).arg(compression).env("NODE_PATH", NODE_PATH);
                (command, "listening ")
            }
        };
        command.args(how.arguments);
        let mut wrapped = how.around(&command);
        let server = match how.namespace {
            Some(namespace) => namespace.enter(|| Process::start(&mut wrapped))?,
            None => Process::start(&mut wrapped)?,
        };
        let told = server.stdout.after(said)?.with_context(|| format!("{self:?} did not start"))?;
        let address = told.parse().or_else(|_| format!("{host}:{told}").parse());
        Ok((server, address.with_context(|| format!("{self:?} listens on {told}"))?))
    }

    /// What the script's connections do where headroom-load's will not do.
    pub(super) fn behaviour(self) -> Option<&'static str> {
        match self {
            Server::PythonDeflate | Server::NodeDeflate => Some("deflate"),
            Server::PythonFlood => Some("stall"),
            Server::ReferenceWithMessages => Some("talk"),
            Server::Reference | Server::Python | Server::Node => None,
        }
    }
}
