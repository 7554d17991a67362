//! The terminal, and giving it back whatever happens.

use std::io::{self, Write, stdout};
use std::panic;
use std::process;

use agent::cli::Exit;
use crossterm::{cursor, execute};
use ratatui::DefaultTerminal;

/// The terminal in the dashboard's hands; dropping it gives the terminal back.
pub(crate) struct Screen {
    /// To draw on.
    pub(crate) terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal: raw mode, alternate screen, no cursor.
    pub(crate) fn open() -> io::Result<Self> {
        end_on_panic();
        // Sets a panic hook of its own as well, which runs first and leaves the alternate screen, so that the message
        // of the hooks before it can be read.
        let terminal = ratatui::try_init().inspect_err(|_| restore())?;
        Ok(Self { terminal })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// What `ratatui::try_init` misses: it shows no cursor again when a thread panics that does not own the terminal, and
/// the other threads would go on drawing over the shell. A panic anywhere is the end.
fn end_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        report(info);
        process::exit(Exit::Internal.code().into());
    }));
}

/// Gives the terminal back. Errors are of no use: the terminal may be what has gone away.
fn restore() {
    let _ = ratatui::try_restore();
    let _ = execute!(stdout(), cursor::Show);
    let _ = stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Has this very test open the screen and panic instead, in a process and on a terminal of its own.
    const ROLE: &str = "HEADROOM_TEST_PANICS";

    #[test]
    fn a_panic_in_any_thread_gives_the_terminal_back_and_ends_the_process() {
        if std::env::var_os(ROLE).is_some() {
            return panic_in_a_thread();
        }
        let binary = std::env::current_exe().expect("this binary");
        let test = "terminal::tests::a_panic_in_any_thread_gives_the_terminal_back_and_ends_the_process";
        let line =
            format!("{ROLE}=1 {} --exact --nocapture {test}; echo status=$?; stty -a", binary.display());
        let output = Command::new("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").output();
        let output = String::from_utf8_lossy(&output.expect("script runs").stdout).into_owned();
        let message = output.find("on purpose").expect("the message is printed");
        let left = output.find("\x1b[?1049l").expect("the alternate screen was left");
        assert!(output.contains("\x1b[?1049h") && left < message, "the message is readable: {output:?}");
        assert!(output.contains("\x1b[?25h"), "the cursor is back: {output:?}");
        assert!(output.contains("status=70"), "{output:?}");
        for setting in ["icanon", "echo", "isig"] {
            assert!(output.split_whitespace().any(|word| word == setting), "{setting} is set: {output:?}");
        }
    }

    /// Beside the thread that owns the screen: the case that would be missed otherwise.
    fn panic_in_a_thread() {
        let _screen = Screen::open().expect("a terminal");
        let thread = std::thread::spawn(|| panic!("on purpose"));
        let _ = thread.join();
        // The hook ends the process before this is over.
        std::thread::sleep(std::time::Duration::from_secs(10));
    }
}
