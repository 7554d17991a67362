//! Where the programs under test are.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// The folder `cargo xtask test` names, or the one this test was built into.
pub(crate) fn folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("HEADROOM_BIN_DIR") {
        return Ok(folder.into());
    }
    // target/PROFILE/deps/privileged-HASH
    let own = std::env::current_exe()?;
    Ok(own
        .parent()
        .and_then(|deps| deps.parent())
        .context("this test's executable has no folder")?
        .to_owned())
}

/// Path of one of them.
pub(crate) fn path(name: &str) -> anyhow::Result<PathBuf> {
    let path = folder()?.join(name);
    if !path.is_file() {
        bail!("{} is not built: run `cargo build --workspace --bins` first", path.display());
    }
    Ok(path)
}
