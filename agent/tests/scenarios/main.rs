//! Scenarios: counts of connections as they come and go on real hosts, generated or recorded, through the model that forecasts
//! and alarms. What may be said of each, and when, stands in its file.

mod judge;
mod replay;
mod script;
mod series;

use std::path::{Path, PathBuf};

use script::Script;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/data")
}

/// Faults of one scenario, under its name; empty where all is as it should be.
fn run(path: &Path) -> Vec<String> {
    let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).expect("readable");
    let script: Script = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let moments = series::moments(&script, &folder());
    let said = replay::replay(&moments, script.limit);
    let faults = said.iter().flat_map(|said| judge::faults(&script, &moments, said));
    let mut faults: Vec<String> = faults.map(|fault| format!("{name} ({}): {fault}", script.about)).collect();
    // A scenario that allows a level which is never reached would not notice if it were.
    if said.iter().all(|said| judge::highest(said) < script.highest_level) {
        faults.push(format!("{name}: highest_level is never reached"));
    }
    faults
}

#[test]
fn nothing_is_said_that_may_not_be_said() {
    let files = std::fs::read_dir(folder()).expect("the scenarios");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("listed").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let faults: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = paths.iter().map(|path| scope.spawn(|| run(path))).collect();
        running.into_iter().flat_map(|one| one.join().expect("no panic")).collect()
    });
    assert!(paths.len() >= 10, "the scenarios are missing");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
