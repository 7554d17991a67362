//! What the kernel side and the agent share: the frame tracker and the records that cross the boundary.
//!
//! Nothing here performs I/O, allocates or reads a clock, so the same code is compiled into the eBPF programs
//! (`main.rs`, feature `programs`) and run on the host by the tests.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(not(feature = "programs"))]
extern crate alloc;

pub mod abi;
pub mod candidate;
pub mod evidence;
pub mod flow;
pub mod frame;
pub mod handshake;
mod keepalive;
pub mod opening;
pub mod reorder;
pub mod request;
#[cfg(not(feature = "programs"))]
pub mod simulate;
pub mod tracker;
