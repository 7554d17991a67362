//! headroom-server.

fn main() {}
