//! End-to-end tests: the real binaries, real sockets. Every wait is bounded, and what a test starts ends with it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod compressed_link;
mod deflate;
mod exact;
mod foreign;
mod http2;
mod keepalive;
mod load;
mod parking;
mod processes;
mod raw;
mod rooms;
mod serving;
mod support;
mod tls;
