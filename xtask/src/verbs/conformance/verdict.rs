//! What the suite found, section by section, and what of it is not good enough.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::expected::{INFORMATIONAL, SECTIONS};

/// A case's number, such as 6.4.3. Cases are ordered as numbers are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Case(Vec<u32>);

/// The suite's judgement, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Behaviour {
    Ok,
    Informational,
    NonStrict,
    Unimplemented,
    /// Anything else the suite may say: FAILED, WRONG CODE, UNCLEAN, FAILED BY CLIENT.
    Failed,
}

/// What became of one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// What was said and answered.
    pub(super) behaviour: Behaviour,
    /// How the connection ended.
    pub(super) close: Behaviour,
}

/// The outcomes of a run.
#[derive(Debug, Default)]
pub(super) struct Results(BTreeMap<Case, Outcome>);

impl Case {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let numbers: Result<_, _> = text.split('.').map(str::parse).collect();
        Ok(Self(numbers.with_context(|| format!("{text} is no case's number"))?))
    }

    fn section(&self) -> u32 {
        self.0[0]
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

impl Behaviour {
    const ALL: [Self; 5] =
        [Self::Ok, Self::Informational, Self::NonStrict, Self::Failed, Self::Unimplemented];

    fn parse(text: &str) -> Self {
        match text {
            "OK" => Self::Ok,
            "INFORMATIONAL" => Self::Informational,
            "NON-STRICT" => Self::NonStrict,
            "UNIMPLEMENTED" => Self::Unimplemented,
            _ => Self::Failed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "passed",
            Self::Informational => "informational",
            Self::NonStrict => "non-strict",
            Self::Failed => "failed",
            Self::Unimplemented => "unimplemented",
        }
    }
}

impl Outcome {
    fn worst(self) -> Behaviour {
        self.behaviour.max(self.close)
    }
}

impl Results {
    /// From the suite's `index.json`, which holds one agent's cases.
    pub(super) fn parse(index: &str) -> anyhow::Result<Self> {
        let index: Value = serde_json::from_str(index).context("the suite's index is no JSON")?;
        let agents = index.as_object().context("the suite's index is no object")?;
        let [cases] = agents.values().collect::<Vec<_>>()[..] else {
            bail!("the suite's index holds {} agents, not one", agents.len());
        };
        let mut results = BTreeMap::new();
        for (name, case) in cases.as_object().context("the suite's index holds no cases")? {
            let field = |field: &str| {
                let text = case[field].as_str().with_context(|| format!("case {name} has no {field}"))?;
                anyhow::Ok(Behaviour::parse(text))
            };
            let outcome = Outcome { behaviour: field("behavior")?, close: field("behaviorClose")? };
            results.insert(Case::parse(name)?, outcome);
        }
        ensure!(!results.is_empty(), "the suite ran no case");
        Ok(Self(results))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Cases that may be informational and are, each with the reason.
    pub(super) fn informational(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let is = |case: &str| {
            self.0.iter().any(|(found, outcome)| {
                outcome.worst() == Behaviour::Informational && found.to_string() == case
            })
        };
        INFORMATIONAL.iter().copied().filter(move |(case, _)| is(case))
    }

    /// What is not as it has to be, a line each, where these patterns were `asked` for. The suite stops without a word when
    /// the server is gone, so what did not run is a complaint too.
    pub(super) fn complaints<S: AsRef<str>>(&self, asked: &[S]) -> Vec<String> {
        let mut complaints = Vec::new();
        for (case, outcome) in &self.0 {
            let expected = INFORMATIONAL.iter().any(|(known, _)| *known == case.to_string());
            match outcome.worst() {
                Behaviour::Ok if expected => complaints.push(format!(
                    "{case} is passed, but is on the list of informational cases: take it off"
                )),
                Behaviour::Ok => {}
                Behaviour::Informational if expected => {}
                Behaviour::Informational => complaints
                    .push(format!("{case} is informational, and not on the list of cases that may be")),
                worst => {
                    let part = if outcome.behaviour == worst { "behaviour" } else { "close" };
                    complaints.push(format!("{case} is {} ({part})", worst.name()));
                }
            }
        }
        complaints.extend(asked.iter().flat_map(|pattern| self.missing(pattern.as_ref())));
        complaints
    }

    /// What a pattern asks for and did not run.
    fn missing(&self, pattern: &str) -> Vec<String> {
        let whole = |section: u32| pattern == "*" || pattern == format!("{section}.*");
        let sections: Vec<_> = SECTIONS.iter().filter(|(section, ..)| whole(*section)).collect();
        if sections.is_empty() {
            let begins = |case: &Case| match pattern.split_once('*') {
                Some((prefix, _)) => case.to_string().starts_with(prefix),
                None => case.to_string() == pattern,
            };
            let ran = self.0.keys().any(begins);
            return if ran { Vec::new() } else { vec![format!("{pattern} did not run")] };
        }
        let ran = |section| self.0.keys().filter(|case| case.section() == section).count();
        let short = sections.into_iter().filter(|(section, _, cases)| ran(*section) != *cases);
        short
            .map(|(section, _, cases)| format!("section {section} ran {} cases of {cases}", ran(*section)))
            .collect()
    }
}

/// The table by section.
impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<36}{:>6}", "section", "cases")?;
        for behaviour in Behaviour::ALL {
            write!(f, "{:>15}", behaviour.name())?;
        }
        writeln!(f)?;
        let mut total = [0; 6];
        for (section, name, _) in SECTIONS {
            let outcomes: Vec<Behaviour> = self
                .0
                .iter()
                .filter(|(case, _)| case.section() == *section)
                .map(|(_, outcome)| outcome.worst())
                .collect();
            if outcomes.is_empty() {
                continue;
            }
            let count = |behaviour| outcomes.iter().filter(|found| **found == behaviour).count();
            let mut row = vec![outcomes.len()];
            row.extend(Behaviour::ALL.map(count));
            line(f, &format!("{section:>2}  {name}"), &row)?;
            total.iter_mut().zip(&row).for_each(|(total, count)| *total += count);
        }
        line(f, "    all", &total)
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, counts: &[usize]) -> fmt::Result {
    write!(f, "{name:<36}{:>6}", counts[0])?;
    for count in &counts[1..] {
        // Zeros would hide the rest.
        write!(f, "{:>15}", if *count == 0 { "–".to_owned() } else { count.to_string() })?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::super::expected::SUBSET;
    use super::*;

    fn results(cases: &[(&str, &str, &str)]) -> Results {
        let cases: serde_json::Map<String, Value> = cases
            .iter()
            .map(|(case, behaviour, close)| {
                let outcome = serde_json::json!({"behavior": behaviour, "behaviorClose": close});
                ((*case).to_owned(), outcome)
            })
            .collect();
        Results::parse(&serde_json::json!({ "server": cases }).to_string()).unwrap()
    }

    fn complaints(cases: &[(&str, &str, &str)]) -> Vec<String> {
        results(cases).complaints::<&str>(&[])
    }

    #[test]
    fn only_what_passes_passes() {
        assert_eq!(complaints(&[("1.1.1", "OK", "OK"), ("13.7.18", "OK", "OK")]), [""; 0]);
        for bad in ["FAILED", "NON-STRICT", "UNIMPLEMENTED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT", "?"]
        {
            assert_eq!(complaints(&[("6.4.3", bad, "OK")]).len(), 1, "{bad}");
            assert_eq!(complaints(&[("6.4.3", "OK", bad)]).len(), 1, "{bad}");
            // Being informational elsewhere is no excuse.
            assert_eq!(complaints(&[("7.1.6", "INFORMATIONAL", bad)]).len(), 1, "{bad}");
        }
        assert_eq!(complaints(&[("12.1.1", "UNIMPLEMENTED", "OK")]), ["12.1.1 is unimplemented (behaviour)"]);
        assert_eq!(complaints(&[("2.1", "OK", "UNCLEAN")]), ["2.1 is failed (close)"]);
    }

    #[test]
    fn informational_cases_are_those_on_the_list() {
        let (known, _) = INFORMATIONAL[0];
        assert_eq!(complaints(&[(known, "INFORMATIONAL", "INFORMATIONAL")]), [""; 0]);
        assert_eq!(results(&[(known, "OK", "INFORMATIONAL")]).informational().count(), 1);
        assert_eq!(results(&[(known, "OK", "OK")]).informational().count(), 0);
        assert!(complaints(&[(known, "OK", "OK")])[0].contains("take it off"));
        assert!(complaints(&[("5.1", "INFORMATIONAL", "OK")])[0].contains("not on the list"));
        assert_eq!(complaints(&[("12.1.1", "OK", "INFORMATIONAL")]).len(), 1);
    }

    #[test]
    fn a_whole_run_has_every_case() {
        let few = results(&[("1.1.1", "OK", "OK")]);
        assert_eq!(few.complaints(&["1.1.1", "1.1.*"]), [""; 0]);
        assert_eq!(few.complaints(&["*"]).len(), SECTIONS.len());
    }

    #[test]
    fn what_was_asked_for_and_did_not_run_is_not_good_enough() {
        let few = results(&[("1.1.1", "OK", "OK"), ("9.8.1", "OK", "OK")]);
        assert_eq!(few.complaints(&["1.*", "9.8.1"]), ["section 1 ran 1 cases of 16"]);
        assert_eq!(few.complaints(&["9.8.2", "9.8.*", "9.9.*"]), ["9.8.2 did not run", "9.9.* did not run"]);
        assert_eq!(few.complaints(SUBSET).len(), SUBSET.len() - 1);
    }

    #[test]
    fn the_table_counts_the_worse_of_behaviour_and_close() {
        let table = results(&[
            ("10.1.1", "OK", "OK"),
            ("2.1", "OK", "UNCLEAN"),
            ("2.2", "OK", "OK"),
            ("7.1.6", "INFORMATIONAL", "OK"),
        ])
        .to_string();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1][..3], ["2", "Pings", "and"]);
        assert_eq!(rows[1][4..], ["2", "1", "–", "–", "1", "–"]);
        assert_eq!(rows.last().unwrap()[..], ["all", "4", "2", "1", "–", "1", "–"]);
        assert!(table.find("Pings") < table.find("Limits") || !table.contains("Limits"));
    }

    #[test]
    fn an_index_without_cases_is_no_result() {
        for text in
            ["", "[]", "{}", "{\"a\": {}}", "{\"a\": {\"1.1\": {}}}", "{\"a\": {\"x\": 1}, \"b\": {}}"]
        {
            assert!(Results::parse(text).is_err(), "{text}");
        }
    }
}
