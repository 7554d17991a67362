//! apt, with the machine's settings or with another Debian release in its sources' place.

mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::process::{Running, Stop};

/// A mirror that fails once is asked again, one that does not answer is given up.
const PATIENCE: [&str; 4] = ["-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30"];

/// What a folder that is not whole yet ends in.
pub(crate) const PART: &str = ".part";

/// How to call apt.
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// As the machine is set up.
    pub(crate) fn of_machine() -> Self {
        Self { options: Vec::new() }
    }

    /// With sources of `suite` derived from the machine's, and all state in `folder`.
    pub(crate) fn of_suite(folder: &Path, suite: &str) -> anyhow::Result<Self> {
        let parts = folder.join("sources.d");
        for needed in [&parts, &folder.join("state/lists/partial"), &folder.join("cache/archives/partial")] {
            fs::create_dir_all(needed).with_context(|| format!("creating {}", needed.display()))?;
        }
        sources::derive(suite, &parts)?;
        let folder = folder.display();
        let options = [
            format!("Dir::State={folder}/state"),
            format!("Dir::Cache={folder}/cache"),
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            format!("Dir::Etc::sourceparts={}", parts.display()),
            "Acquire::Languages=none".to_owned(),
            // Its usual user cannot be counted on to reach the build folder.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self { options: options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect() })
    }

    /// Fetches the lists of packages.
    pub(crate) fn update(&self, stop: &Stop) -> anyhow::Result<()> {
        println!("apt-get update, in a folder of its own");
        self.wait(
            stop,
            Command::new("apt-get").args(PATIENCE).args(&self.options).args(["--quiet=2", "update"]),
        )
    }

    /// Names of the packages that match a regular expression.
    pub(crate) fn search(&self, pattern: &str) -> anyhow::Result<Vec<String>> {
        let mut command = Command::new("apt-cache");
        command.args(&self.options).args(["search", "--names-only", pattern]).stderr(Stdio::null());
        let output = command.output().context("cannot run apt-cache: this needs a Debian machine")?;
        ensure!(output.status.success(), "apt-cache search: {}", output.status);
        let lines = String::from_utf8_lossy(&output.stdout);
        Ok(lines.lines().filter_map(|line| Some(line.split_once(" - ")?.0.to_owned())).collect())
    }

    /// Unpacks the package's files to `folder` unless that is there already. Nothing of it is configured or started.
    pub(crate) fn unpack(&self, stop: &Stop, package: &str, folder: &Path) -> anyhow::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let mut scratch = folder.as_os_str().to_owned();
        scratch.push(PART);
        let scratch = PathBuf::from(scratch);
        if scratch.exists() {
            fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
        }
        fs::create_dir_all(&scratch).with_context(|| format!("creating {}", scratch.display()))?;
        self.download(stop, package, &scratch)?;
        let file = find(&scratch, |name| name.ends_with(".deb"))?;
        let mut command = Command::new("dpkg-deb");
        let status = Running::start(command.arg("--extract").arg(&file).arg(&scratch))?.wait(stop)?;
        ensure!(status.success(), "unpacking {}: {status}", file.display());
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        fs::rename(&scratch, folder).with_context(|| format!("creating {}", folder.display()))
    }

    /// Puts the package's file into `folder`.
    fn download(&self, stop: &Stop, package: &str, folder: &Path) -> anyhow::Result<()> {
        println!("apt-get download {package}");
        let mut command = Command::new("apt-get");
        command.args(PATIENCE).args(["-o", "APT::Sandbox::User=root"]).args(&self.options);
        command.args(["--quiet=2", "download", package]);
        self.wait(stop, command.current_dir(folder))
    }

    fn wait(&self, stop: &Stop, command: &mut Command) -> anyhow::Result<()> {
        let status = Running::start(command)?.wait(stop)?;
        ensure!(status.success(), "apt-get: {status}");
        Ok(())
    }
}

/// The file in `folder` whose name is such.
pub(crate) fn find(folder: &Path, is_it: impl Fn(&str) -> bool) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    let found = names.find(|name| name.to_str().is_some_and(&is_it));
    Ok(folder.join(found.with_context(|| format!("not what was expected in {}", folder.display()))?))
}
