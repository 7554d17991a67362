//! What one writes with tokio-tungstenite and nothing else: a task per connection that echoes and pings. The bench sets
//! headroom-server beside it.
//!
//! `plain default SECONDS` takes the library's settings, `plain tuned SECONDS` small buffers; SECONDS is the ping interval.

use std::io::{self, Write};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, interval_at};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [settings, seconds] = arguments.as_slice() else { return Err("which settings?".into()) };
    let config = match settings.as_str() {
        "default" => WebSocketConfig::default(),
        "tuned" => WebSocketConfig::default().read_buffer_size(512).write_buffer_size(0),
        _ => return Err("default or tuned".into()),
    };
    let period = Duration::from_secs(seconds.parse()?);
    server::limits::raise()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(io::stdout(), "listening on ws://{}", listener.local_addr()?)?;
    loop {
        let (tcp, _) = listener.accept().await?;
        // A peer that goes away is no matter for the others.
        tokio::spawn(async move { serve(tcp, config, period).await.is_ok() });
    }
}

async fn serve(tcp: TcpStream, config: WebSocketConfig, period: Duration) -> Result<(), Error> {
    tcp.set_nodelay(true)?;
    let mut socket = accept_async_with_config(tcp, Some(config)).await?;
    let mut pings = interval_at(Instant::now() + period, period);
    loop {
        tokio::select! {
            _ = pings.tick() => socket.send(Message::Ping(Bytes::new())).await?,
            message = socket.next() => match message {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => socket.send(message).await?,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
}
