//! A setting of the whole host, put back at the end.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::runner::Skip;

pub(super) struct Sysctl {
    path: PathBuf,
    before: String,
}

impl Sysctl {
    pub(super) fn set(path: &str, value: impl ToString) -> anyhow::Result<Self> {
        let path = PathBuf::from(path);
        let before = std::fs::read_to_string(&path)
            .map_err(|error| Skip(format!("{} cannot be read here: {error}", path.display())))?;
        std::fs::write(&path, value.to_string()).with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(&self.path, self.before.trim()) {
            println!("{} could not be put back to {}: {error}", self.path.display(), self.before.trim());
        }
    }
}
