//! JSON lines into envelopes.

use std::io::BufRead;

use agent::cli::{Exit, Failure};
use agent::document::{Body, Envelope, SCHEMA};
use serde::Deserialize;

/// Iterates over the envelopes of a reader; the first error ends it.
pub(super) struct Lines<R> {
    name: String,
    /// What a line that cannot be understood ends the process with.
    exit: Exit,
    reader: R,
    number: u64,
    line: String,
    ended: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(name: String, exit: Exit, reader: R) -> Self {
        Self { name, exit, reader, number: 0, line: String::new(), ended: false }
    }

    fn read(&mut self) -> anyhow::Result<Option<Envelope>> {
        loop {
            self.line.clear();
            self.number += 1;
            if self.reader.read_line(&mut self.line).map_err(|error| self.failure(error))? == 0 {
                return Ok(None);
            }
            if self.line.trim().is_empty() {
                continue;
            }
            let envelope: Envelope = match serde_json::from_str(&self.line) {
                Ok(envelope) => envelope,
                // A writer that was killed, or is still at it, leaves half a line behind: the stream ends there.
                Err(error) if error.is_eof() && !self.line.ends_with('\n') => return Ok(None),
                Err(_) if is_of_a_newer_agent(&self.line) => continue,
                Err(error) => return Err(self.failure(error).into()),
            };
            if envelope.schema != SCHEMA {
                return Err(self.failure(format!("is {:?}, this reads {SCHEMA:?}", envelope.schema)).into());
            }
            return Ok(Some(envelope));
        }
    }

    fn failure(&self, error: impl std::fmt::Display) -> Failure {
        Failure::new(self.exit, format!("{}: line {}: {error}", self.name, self.number))
    }
}

/// Whether a line is an event of this schema that is not known here: events are added, and a reader goes on without.
fn is_of_a_newer_agent(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Head {
        schema: String,
        event: String,
    }
    serde_json::from_str(line)
        .is_ok_and(|head: Head| head.schema == SCHEMA && !Body::NAMES.contains(&head.event.as_str()))
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = anyhow::Result<Envelope>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn read(text: &str) -> Vec<anyhow::Result<Envelope>> {
        Lines::new("x.jsonl".into(), Exit::Config, text.as_bytes()).collect()
    }

    #[test]
    fn reads_back_what_was_written() {
        let sent = fixture::recording(2);
        let read: Vec<_> =
            read(&fixture::lines(&sent)).into_iter().map(|item| item.expect("parses")).collect();
        assert_eq!(read, sent);
    }

    #[test]
    fn a_bad_line_is_named_once_and_ends_the_stream() {
        let good = fixture::lines(&fixture::recording(1));
        let before = good.lines().count();
        let items = read(&format!("{good}{{\"schema\": 1}}\n{good}"));
        assert_eq!(items.len(), before + 1);
        let error = items.into_iter().next_back().expect("an item").expect_err("the bad line");
        assert!(error.to_string().starts_with(&format!("x.jsonl: line {}: ", before + 1)), "{error}");
    }

    #[test]
    fn an_event_of_a_newer_agent_is_passed_over() {
        let good = fixture::lines(&fixture::recording(1));
        let newer = r#"{"schema":"headroom/1","seq":9,"event":"moon_risen","moon_risen":{}}"#;
        assert!(read(&format!("{newer}\n{good}")).iter().all(Result::is_ok));
        let broken = r#"{"schema":"headroom/1","seq":9,"event":"tick","tick":{}}"#;
        assert!(read(&format!("{broken}\n{good}"))[0].is_err());
    }

    #[test]
    fn half_a_last_line_is_an_end_but_half_a_line_amid_others_is_not() {
        let good = fixture::lines(&fixture::recording(1));
        let half = &good[..good.len() - 20];
        assert!(read(half).iter().all(Result::is_ok));
        assert!(read(&format!("{half}\n{good}")).iter().any(Result::is_err));
    }

    #[test]
    fn another_schema_is_refused_by_name() {
        let other = fixture::lines(&fixture::recording(1)).replace("headroom/1", "headroom/2");
        let error = read(&other).remove(0).expect_err("refused");
        assert!(error.to_string().contains("\"headroom/2\""), "{error}");
    }
}
