//! The servers that are compared. All do the same: echo, a ping every so often on each connection, no compression.

use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::ebpf::workspace_root;

use crate::process::Stop;
use crate::verbs::listening::Listening;
use crate::verbs::{python, target_dir};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Headroom,
    TungsteniteDefault,
    TungsteniteTuned,
    TokioWebsockets,
    NodeWs,
    PythonWebsockets,
}

impl Peer {
    pub(super) const ALL: [Self; 6] = [
        Self::Headroom,
        Self::TungsteniteDefault,
        Self::TungsteniteTuned,
        Self::TokioWebsockets,
        Self::NodeWs,
        Self::PythonWebsockets,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Headroom => "headroom-server",
            Self::TungsteniteDefault => "tokio-tungstenite, default",
            Self::TungsteniteTuned => "tokio-tungstenite, tuned",
            Self::TokioWebsockets => "tokio-websockets",
            Self::NodeWs => "Node ws",
            Self::PythonWebsockets => "Python websockets",
        }
    }

    /// Starts it; `ping_interval` in seconds.
    pub(super) fn start(self, stop: &Stop, folder: &Path, ping_interval: u32) -> anyhow::Result<Listening> {
        let seconds = ping_interval.to_string();
        let mut command = match self {
            Self::Headroom => {
                let mut command = Command::new(release("headroom-server"));
                command.args(["--listen", "ws://127.0.0.1:0", "--ping-interval", &format!("{seconds}s")]);
                command
            }
            Self::TungsteniteDefault => example("plain", &["default", &seconds]),
            Self::TungsteniteTuned => example("plain", &["tuned", &seconds]),
            Self::TokioWebsockets => example("peer-tokio-websockets", &[&seconds]),
            Self::NodeWs => {
                let mut command = Command::new("node");
                // A Node of another origin does not know Debian's folder.
                command.env("NODE_PATH", "/usr/share/nodejs");
                command.arg(script("node-ws.js")).arg(&seconds);
                command
            }
            Self::PythonWebsockets => {
                let mut command = Command::new(python::interpreter(stop)?);
                command.arg("-B").arg(script("python-websockets.py")).arg(&seconds);
                command
            }
        };
        Listening::start(stop, &mut command, self.name(), folder)
    }
}

/// A binary of the release build.
pub(super) fn release(name: &str) -> PathBuf {
    target_dir().join("release").join(name)
}

pub(super) fn example(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(release("examples").join(name));
    command.args(arguments);
    command
}

/// One of the scripts beside the examples.
pub(super) fn script(name: &str) -> PathBuf {
    workspace_root().join("server/examples/peers").join(name)
}
