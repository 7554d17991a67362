//! One file per program, and what they share.

mod destroy;
mod flows;
mod kernel;
mod maps;
mod owners;
mod packet;
mod segment;
mod sockets;
mod upgrade;
