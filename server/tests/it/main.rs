//! End-to-end tests: the real binaries, real sockets. Every wait is bounded, and what a test starts ends with it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod carriers;
mod compressed_link;
mod deflate;
mod exact;
mod foreign;
mod http2;
mod keepalive;
mod load;
mod metrics;
mod parking;
mod policy;
mod processes;
mod raw;
mod refusals;
mod rooms;
mod serving;
mod shapes;
mod support;
mod tls;
mod turns;
mod witness;
