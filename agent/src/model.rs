//! The model: readings in, ceilings, advice and documents out. Pure: no I/O, and time is an argument.

mod advice;
mod ceilings;
#[cfg(feature = "kernel")]
mod convert;
mod costs;
mod estimate;
mod growth;
mod levels;
mod lineage;
mod peers;
mod plan;
#[cfg(feature = "kernel")]
mod presumption;
mod rates;
mod reading;
mod reconciliation;
mod summary;
mod theil_sen;
#[cfg(feature = "kernel")]
mod traffic;
#[cfg(feature = "kernel")]
mod upgrade;
pub mod wire;
pub mod zlib;

pub use advice::{Known, advise};
pub use ceilings::{Earlier, Inputs, ceilings, process_scope};
pub use costs::Costs;
pub use estimate::Estimate;
pub use growth::{Forecast, Growth, Growths};
pub use levels::{Levels, Pair, Thresholds};
pub use lineage::{Lineage, Lineages, Member};
pub use peers::Peers;
pub use plan::{Compression, KERNEL_BYTES, Messages, Pings, PlanError, Question, plan};
pub use rates::{Mix, Rate, Rates};
pub use reading::{
    CgroupCpu, CgroupMemory, CgroupTasks, Conntrack, HostCpu, HostDescriptors, HostMemory, HostTasks,
    Interface, LinkSpeed, Listening, LocalPorts, Overflows, ProcessReading, Reading, SlabCost, TcpMemory,
};
pub use reconciliation::{Counted, Reconciliation};
pub use summary::{Destination, Destinations, Ends, Holder, Place, Summary};
pub use theil_sen::{slope, slope_within};

#[cfg(feature = "kernel")]
pub use convert::{Clock, connection, opened, presumed_connection};
#[cfg(feature = "kernel")]
pub(crate) use convert::{address, buffer_bytes, estimated_bytes, role};
#[cfg(feature = "kernel")]
pub use presumption::{ClientDestinations, presumed};
#[cfg(feature = "kernel")]
pub use traffic::listener;
#[cfg(feature = "kernel")]
pub use upgrade::upgrade;
