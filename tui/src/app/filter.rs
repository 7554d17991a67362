//! Which connections a filter lets through.

use agent::document::Connection;

use crate::view::View;

/// Whether `text` occurs in an address, the process id or the command name of the connection.
pub(super) fn matches(text: &str, connection: &Connection, view: &View) -> bool {
    if text.is_empty() || connection.local.contains(text) || connection.remote.contains(text) {
        return true;
    }
    connection.pid.is_some_and(|pid| {
        pid.to_string().contains(text) || view.command(pid).is_some_and(|command| command.contains(text))
    })
}
