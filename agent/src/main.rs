//! headroom-agent.

fn main() {}
