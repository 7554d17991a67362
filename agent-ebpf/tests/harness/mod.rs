//! From bytes to a scenario to assertions: the same for the fuzz targets (`fuzz/`), the committed corpora
//! (`tests/corpus.rs`) and the long property run (`examples/`).
#![allow(dead_code, reason = "each of them uses a part")]

pub(crate) mod handshake;
pub(crate) mod tracker;
