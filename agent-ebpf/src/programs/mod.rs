//! One file per program, and what they share.

mod candidates;
mod destroy;
mod elders;
mod enrol;
mod exchange;
mod flows;
mod follow;
mod holes;
mod kernel;
mod late;
mod maps;
mod owners;
mod packet;
mod parked;
mod pool;
mod receive;
mod replay;
mod retransmit;
mod segment;
mod send;
mod sockets;
mod tasks;
mod upgrade;
