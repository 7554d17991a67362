//! Headroom dashboard.
