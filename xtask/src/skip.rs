//! What cannot run here.

use thiserror::Error;

/// An error that means "cannot be checked here", in words. `cargo xtask test` counts the step as skipped, unless `CI` is
/// "true": there whatever cannot run is a failure.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct Skip(pub(crate) String);

/// Whether skipping is forbidden.
pub(crate) fn is_forbidden() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}
