//! The end of a connection that got our Close while it was parked and had more to say than its own.

use std::io;
use std::net::TcpStream as IdleStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::debug;

use super::Slot;
use super::roster::Farewell;
use crate::meter::{FrameMeter, Opcode};

/// Waits for the peer's Close, or its end; until then nothing it says matters any more. How long that may take is up to
/// whoever runs this.
pub(super) async fn wait(farewell: Farewell, slot: Slot) {
    if let Err(error) = see_off(farewell).await {
        debug!(%error, "the peer did not close");
    }
    drop(slot);
}

async fn see_off(farewell: Farewell) -> io::Result<()> {
    let mut tcp = TcpStream::from_std(IdleStream::from(farewell.socket))?;
    if let Some(backlog) = farewell.backlog {
        tcp.write_all(backlog.rest()).await?;
    }
    let (mut meter, mut closed) = (FrameMeter::default(), false);
    let mut look = |bytes: &[u8]| {
        meter.advance(bytes, |frame| closed |= frame.opcode == Opcode::Close);
        closed
    };
    let mut scratch = [0; 1024];
    let mut over = look(&farewell.tail);
    while !over {
        let count = tcp.read(&mut scratch).await?;
        over = count == 0 || look(&scratch[..count]);
    }
    Ok(())
}
