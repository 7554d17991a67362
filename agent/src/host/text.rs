//! Short texts that the kernel makes up as they are read.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Room for nearly all of them at once: `std::fs::read_to_string` knows no size here and would begin with 32 bytes.
const ROOM: usize = 4096;

/// The whole text; an error where it is not UTF-8.
pub(super) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = Vec::with_capacity(ROOM);
    File::open(path)?.read_to_end(&mut text)?;
    String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The same, with the file's name in the error.
pub(super) fn named(path: &str) -> Result<String, String> {
    read(path).map_err(|error| format!("{path}: {error}"))
}

/// A file that holds one number; none where there is no such file or it holds something else.
pub(super) fn value(path: impl AsRef<Path>) -> Option<u64> {
    read(path).ok()?.trim().parse().ok()
}

/// A number among words.
pub(super) fn number(word: Option<&str>) -> Result<u64, String> {
    let word = word.ok_or("a number is missing")?;
    word.parse().map_err(|_| format!("{word:?} is no number"))
}
