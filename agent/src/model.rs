//! The model: readings in, ceilings, advice and documents out. Pure: no I/O, and time is an argument.

mod advice;
mod ceilings;
#[cfg(feature = "kernel")]
mod convert;
mod cost;
mod estimate;
mod growth;
mod reading;
mod summary;
mod theil_sen;
#[cfg(feature = "kernel")]
mod traffic;
#[cfg(feature = "kernel")]
mod upgrade;

pub use advice::advise;
pub use ceilings::{Inputs, ceilings};
pub use cost::ProcessCosts;
pub use estimate::Estimate;
pub use growth::{Growth, Growths};
pub use reading::{
    CgroupCpu, CgroupMemory, CgroupTasks, Conntrack, HostCpu, HostDescriptors, HostMemory, HostTasks,
    Interface, LinkSpeed, Listening, LocalPorts, Overflows, ProcessReading, Reading, SlabCost, TcpMemory,
};
pub use summary::{Destination, Destinations, Ends, Holder, Summary};
pub use theil_sen::{slope, slope_within};

#[cfg(feature = "kernel")]
pub use convert::{Clock, connection, opened};
#[cfg(feature = "kernel")]
pub(crate) use convert::{address, buffer_bytes, estimated_bytes};
#[cfg(feature = "kernel")]
pub use traffic::listener;
#[cfg(feature = "kernel")]
pub use upgrade::upgrade;
