//! Documents as JSON text that a terminal may be shown as well as a program.
//!
//! JSON has control characters below U+0020 escaped and nothing else: DEL, the C1 controls (U+009B begins an escape sequence
//! by itself) and characters that turn text round would pass. They are written as `\uXXXX`, which every reader takes for the
//! same string.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::terminal::is_obeyed;

/// `value` on one line, without the line's end.
pub fn to_vec(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(1024);
    write(&mut text, value)?;
    Ok(text)
}

/// Writes `value` on one line, without the line's end.
pub fn write(writer: impl io::Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(writer, Escaping(CompactFormatter)))
}

/// Writes `value` for people, without the last line's end.
pub fn write_pretty(writer: impl io::Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(writer, Escaping(PrettyFormatter::new())))
}

/// A formatter that escapes more of a string.
struct Escaping<F>(F);

impl<F: Formatter> Formatter for Escaping<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // Nearly all fragments are ASCII.
        if fragment.bytes().all(|byte| byte.is_ascii() && byte != 0x7f) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_obeyed(*c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_read_back_the_same() {
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let value = serde_json::json!({ all.clone(): [all, "größe 接続", 1, null, {}, []] });
        let mut pretty = Vec::new();
        write_pretty(&mut pretty, &value).expect("written");
        for text in [to_vec(&value).expect("written"), pretty] {
            let text = String::from_utf8(text).expect("UTF-8");
            assert!(!text.contains(|c| is_obeyed(c) && c != '\n'));
            assert!(text.contains("größe 接続") && text.contains("\\udb40\\udc01"), "surrogates make a pair");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("read back"), value);
        }
    }

    #[test]
    fn the_form_is_serde_jsons() {
        let value = serde_json::json!({ "a": [1, "b\"\\\n"], "c": {}, "d": { "e": [] } });
        assert_eq!(to_vec(&value).expect("written"), serde_json::to_vec(&value).expect("written"));
        let mut pretty = Vec::new();
        write_pretty(&mut pretty, &value).expect("written");
        assert_eq!(pretty, serde_json::to_vec_pretty(&value).expect("written"));
    }
}
