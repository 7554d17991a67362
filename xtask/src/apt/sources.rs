//! apt sources of another Debian release, derived from the machine's own: mirrors and keys are the machine's business.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// The machine's sources.
const FILE: &str = "/etc/apt/sources.list";
const FOLDER: &str = "/etc/apt/sources.list.d";

/// Writes the machine's Debian sources with `suite` in the place of its own release into `folder`.
pub(super) fn derive(suite: &str, folder: &Path) -> anyhow::Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let own = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|own| own.trim_matches('"'));
    let own = own.context("/etc/os-release names no release: this needs a Debian machine")?;
    let mut written = 0;
    for file in files() {
        let (Some(name), Ok(text)) = (file.file_name(), fs::read_to_string(&file)) else {
            continue;
        };
        let one_line = file.extension().is_some_and(|extension| extension == "list");
        let derived = replace(&text, one_line, own, suite);
        if !derived.is_empty() {
            let path = folder.join(name);
            fs::write(&path, derived).with_context(|| format!("writing {}", path.display()))?;
            written += 1;
        }
    }
    ensure!(written > 0, "the machine's apt sources have no {own} to put {suite} in the place of");
    Ok(())
}

fn files() -> Vec<PathBuf> {
    let parts = fs::read_dir(FOLDER).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is_source = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    };
    std::iter::once(FILE.into()).chain(parts).filter(is_source).collect()
}

/// Keeps the sources of release `own` and makes them `suite`'s. A source is a line in the one-line format and a
/// paragraph in the other (sources.list(5)).
fn replace(text: &str, one_line: bool, own: &str, suite: &str) -> String {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.trim_start().starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n");
    let sources = text.split(if one_line { "\n" } else { "\n\n" });
    let kept = sources.filter(|source| source.split_whitespace().any(|word| behind(word, own).is_some()));
    kept.map(|source| rename(source, own, suite) + "\n\n").collect()
}

/// Replaces the release in every suite's name.
fn rename(source: &str, own: &str, suite: &str) -> String {
    let line = |line: &str| {
        let words =
            line.split(' ').map(|word| behind(word, own).map_or(word.into(), |rest| suite.to_owned() + rest));
        words.collect::<Vec<_>>().join(" ")
    };
    source.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// What follows the release in a suite's name, as "-updates"; `None` where the word is not of that release.
fn behind<'a>(word: &'a str, release: &str) -> Option<&'a str> {
    word.strip_prefix(release).filter(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_of_the_release_are_kept_and_renamed() {
        let text = "Types: deb\n# bookworm\nURIs: mirror:/bookworm\nSuites: bookworm bookworm-updates\n\n\
                    Types: deb\nSuites: nodistro\n";
        assert_eq!(
            replace(text, false, "bookworm", "trixie"),
            "Types: deb\nURIs: mirror:/bookworm\nSuites: trixie trixie-updates\n\n"
        );
    }

    #[test]
    fn so_are_lines() {
        let text =
            "deb mirror:/debian bookworm main\ndeb mirror:/else stable main\n#deb mirror:/x bookworm main";
        assert_eq!(replace(text, true, "bookworm", "trixie"), "deb mirror:/debian trixie main\n\n");
        assert_eq!(replace(text, true, "trixie", "bookworm"), "");
    }
}
