//! The same server as `plain.rs`, written with another library: tokio-websockets. The bench sets headroom-server beside it.
//!
//! `peer-tokio-websockets SECONDS`; SECONDS is the ping interval.

use std::io::{self, Write};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, interval_at};
use tokio_websockets::{Error, Message, ServerBuilder};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).ok_or("which ping interval?")?;
    let period = Duration::from_secs(seconds.parse()?);
    server::limits::raise()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(io::stdout(), "listening on ws://{}", listener.local_addr()?)?;
    loop {
        let (tcp, _) = listener.accept().await?;
        // A peer that goes away is no matter for the others.
        tokio::spawn(async move { serve(tcp, period).await.is_ok() });
    }
}

async fn serve(tcp: TcpStream, period: Duration) -> Result<(), Error> {
    tcp.set_nodelay(true)?;
    let (_, mut socket) = ServerBuilder::new().accept(tcp).await?;
    let mut pings = interval_at(Instant::now() + period, period);
    loop {
        tokio::select! {
            _ = pings.tick() => socket.send(Message::ping("")).await?,
            message = socket.next() => match message {
                Some(Ok(message)) if message.is_text() || message.is_binary() => socket.send(message).await?,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
}
