//! The kernel side of the agent: loading the eBPF programs and reading what they gather.
//!
//! Which hooks are used is decided by what really loads, never by the kernel's version; what does not load is a
//! [`Degraded`](crate::document::Degraded) entry with the reason, and only the packet programs are indispensable.

mod btf;
mod cgroup;
mod check;
mod iterator;
mod load;
mod measure;
mod namespaces;
mod object;
mod offsets;
mod pages;
mod privilege;
mod read;
mod record;
mod replay;
mod slots;

pub use btf::{Btf, BtfError};
pub use check::{Checked, Figures};
pub use load::{
    Attempts, DESTROY_HOOK, HOOKS, Hook, LoadError, Options, Programs, RETRANSMIT_HOOK, TASK_HOOK,
};
pub use measure::{Runs, Statistics};
pub(crate) use privilege::keep_for_output;
pub use privilege::missing_capabilities;
pub use read::{Lifecycle, Observation, Probes, ReadError, Swept};
pub use record::{CandidateSocket, Handshake, Socket};
pub use replay::Replayer;
