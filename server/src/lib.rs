//! Headroom's reference WebSocket server and its load generator.
//!
//! - [`daemon`]: what `headroom-server` runs; the server whose costs the documentation quotes.
//! - [`deflate`]: permessage-deflate, negotiated and carried out beneath the engine; both use it.
//! - [`flags`]: those of its command-line flags that are about operating it.
//! - [`load`]: what `headroom-load` runs; it opens connections and counts every frame exactly.
//! - [`link`]: one WebSocket over one TCP socket, as small as it can be while idle; both use it.
//! - [`logs`]: what is logged and how.
//! - [`memory`]: what makes the allocator let go of a burst's memory.
//! - [`shards`]: one server as several processes that share its ports.
//! - [`meter`]: reads frame boundaries off a byte stream; the counts come from there.
//! - [`text`]: finds invalid text before its frame is complete, which the engine does not.
//!
//! tungstenite is the protocol engine. It does no I/O here of its own: [`link::Link`] lends it the socket.

pub mod daemon;
pub mod deflate;
pub mod flags;
pub mod limits;
pub mod link;
pub mod load;
pub mod logs;
pub mod memory;
pub mod meter;
pub mod notify;
mod pulse;
pub mod shards;
pub mod signals;
pub mod text;
