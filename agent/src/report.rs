//! What Headroom says to people: the words for the first ceiling and the snapshot as text.
//!
//! Pure: documents in, text out. The dashboard uses the same words and numbers, so a screen, a `--once` and a log line
//! never disagree.

mod costs;
pub mod format;
mod grid;
mod headline;
#[cfg(test)]
mod hostile;
mod plan;
mod table;
mod text;
pub mod words;

pub use costs::made_of;
pub use headline::{headline, scope};
pub use plan::plans;
pub use table::table;
pub use text::Report;
