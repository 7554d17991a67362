//! Headroom dashboard.

fn main() {}
