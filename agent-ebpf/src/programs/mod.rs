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
mod refuse;
mod replay;
mod request;
mod retransmit;
mod segment;
mod send;
mod slots;
mod sockets;
mod tasks;
mod upgrade;
