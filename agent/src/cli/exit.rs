//! Exit codes (the BSD `sysexits.h` numbers) and the one way a binary ends.

use std::fmt;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::terminal::printable;

/// Documented exit codes. The numbers are those of `sysexits.h`, so init systems and scripts know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 64: a flag, argument or combination of them makes no sense.
    Usage,
    /// 69: something this host should offer is not there (BTF, cgroup v2, a free port, a peer).
    Unavailable,
    /// 70: a defect of ours or an I/O error nobody planned for.
    Internal,
    /// 77: privilege is missing; the message names the capabilities.
    NoPermission,
    /// 78: a configuration file cannot be read or does not say what it must.
    Config,
}

impl Exit {
    /// The process exit status.
    pub fn code(self) -> u8 {
        match self {
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::NoPermission => 77,
            Exit::Config => 78,
        }
    }
}

/// An error that knows the exit code it deserves. Anything else that reaches [`run`] is [`Exit::Internal`].
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// `message` says what failed, on what, and what to do, in one line.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// The exit code this failure ends the process with.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Parses the command line; help and version go to stdout with status 0, a mistake becomes one line on stderr and
/// status 64.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    match T::try_parse() {
        Ok(args) => Ok(args),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // A closed pipe behind `--help | head` is not worth a message.
            let _ = error.print();
            Err(ExitCode::SUCCESS)
        }
        Err(error) => {
            say(&usage_line(&error.to_string()));
            Err(ExitCode::from(Exit::Usage.code()))
        }
    }
}

/// Runs a binary's body and turns its error into one line on stderr and a documented exit code.
pub fn run(name: &str, body: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    let Err(error) = body() else {
        return ExitCode::SUCCESS;
    };
    // serde_json keeps the I/O error it met out of its chain of causes.
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        io.or_else(|| cause.downcast_ref::<serde_json::Error>()?.io_error_kind())
    };
    let closed_pipe = error.chain().any(|cause| kind(cause) == Some(std::io::ErrorKind::BrokenPipe));
    if closed_pipe {
        // The reader went away (`… | head`): it has what it wanted.
        return ExitCode::SUCCESS;
    }
    let exit =
        error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map_or(Exit::Internal, Failure::exit);
    say(&format!("{name}: {error:#}"));
    ExitCode::from(exit.code())
}

/// clap explains a mistake over several lines (error, tip, usage, pointer to help); the first paragraph says it all.
fn usage_line(text: &str) -> String {
    let first_paragraph: Vec<&str> =
        text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    format!("{} (see --help)", first_paragraph.join(" "))
}

/// Prints one line on stderr, the only way in which anything is said there: errors quote paths, arguments and what other
/// programs said, and a terminal must not obey any of it.
#[expect(clippy::print_stderr, reason = "the command line's own error channel")]
pub fn say(text: &str) {
    eprintln!("{}", one_line(text));
}

fn one_line(text: &str) -> String {
    printable(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_errors_are_one_line() {
        let text = "error: the following required arguments were not provided:\n  --listen <URL>\n\nUsage: x --listen <URL>\n\nFor more";
        assert_eq!(
            usage_line(text),
            "error: the following required arguments were not provided: --listen <URL> (see --help)"
        );
    }

    #[test]
    fn an_error_is_one_line_that_no_terminal_obeys() {
        let error = anyhow::anyhow!("no\x1b[2J such\u{9b}31m\u{202e} file\x7f")
            .context("reading /tmp/\x1b]0;x\x07\ny");
        let line = one_line(&format!("{error:#}"));
        assert!(!line.contains(crate::terminal::is_obeyed), "{line:?}");
        assert!(line.starts_with("reading /tmp/\\u{1b}]0;x\\u{7} y: no\\u{1b}[2J such"), "{line}");
    }

    #[test]
    fn a_failure_keeps_its_exit_code_under_context() {
        let error =
            anyhow::Error::new(Failure::new(Exit::NoPermission, "CAP_BPF is missing")).context("load");
        let exit = error.chain().find_map(|c| c.downcast_ref::<Failure>()).map(Failure::exit);
        assert_eq!(exit, Some(Exit::NoPermission));
    }
}
