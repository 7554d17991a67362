//! WebSockets over HTTP/2 (RFC 8441) without TLS.

mod bytes;
pub(crate) mod client;
mod hostile;
mod limits;
mod memory;
mod serving;
mod streams;
