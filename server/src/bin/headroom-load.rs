//! headroom-load.

fn main() {}
