//! The machine's only file system: programs, the libraries they are loaded with, and kernel modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::cpio::Archive;
use super::libraries;

/// Where vm-init finds the modules, to be loaded in the order of their names.
const MODULES: &str = "modules";

/// Writes the archive; `programs` are paths in the machine and files here, `modules` are loaded in their order.
pub(super) fn write(to: &Path, programs: &[(&str, PathBuf)], modules: &[PathBuf]) -> anyhow::Result<()> {
    let mut files: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for (path, file) in programs {
        for library in libraries::of(file)? {
            // Where the loader looks for it, without the leading slash.
            let path = library.strip_prefix("/").unwrap_or(&library).to_owned();
            files.insert(path, library);
        }
        files.insert(path.into(), file.clone());
    }
    for (index, module) in modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        files.insert(Path::new(MODULES).join(format!("{index}-{name}")), module.clone());
    }
    let folders: BTreeSet<&Path> = files
        .keys()
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect();
    let written = File::create(to).map(BufWriter::new).map_err(anyhow::Error::from);
    written
        .and_then(|file| archive(file, &folders, &files))
        .with_context(|| format!("writing {}", to.display()))
}

fn archive(
    to: impl Write,
    folders: &BTreeSet<&Path>,
    files: &BTreeMap<PathBuf, PathBuf>,
) -> anyhow::Result<()> {
    let mut archive = Archive::new(to);
    // In order, so that each comes behind those it lies in.
    for folder in folders {
        archive.folder(&folder.to_string_lossy())?;
    }
    for (path, file) in files {
        let contents = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        archive.program(&path.to_string_lossy(), &contents)?;
    }
    archive.finish()?;
    Ok(())
}
