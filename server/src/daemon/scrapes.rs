//! The listener for scrapes: `GET /metrics` and nothing else, apart from where WebSockets come in.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Shared;
use super::accept::linger;
use super::metrics::{CONTENT_TYPE, Scrape, response};

/// Scrapes at once; more are not answered.
const AT_ONCE: usize = 16;
/// Longest request read.
const MAX_REQUEST: usize = 8 * 1024;
/// From the connection to the last byte of the answer.
const WITHIN: Duration = Duration::from_secs(10);

const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers for ever. `names` are the listeners'.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, names: Arc<[String]>) -> Infallible {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                debug!(%error, "cannot accept a scrape");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let scrape = Scrape { shared: shared.clone(), listeners: names.clone() };
        tokio::spawn(async move {
            // Whoever is too slow, or gone, gets no answer.
            let _ = timeout(WITHIN, answer(tcp, scrape)).await;
            drop(place);
        });
    }
}

async fn answer(mut tcp: TcpStream, scrape: Scrape) -> io::Result<()> {
    let mut received = Vec::with_capacity(1024);
    let reply = loop {
        if tcp.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
        if let Some(reply) = judge(&received, || scrape_text(&scrape)) {
            break reply;
        }
    };
    tcp.write_all(reply.as_bytes()).await?;
    linger(tcp).await;
    Ok(())
}

fn scrape_text(scrape: &Scrape) -> Option<String> {
    let scrape = Scrape { shared: scrape.shared.clone(), listeners: scrape.listeners.clone() };
    scrape.text().map_err(|error| warn!(name: "scrape_failed", %error, "cannot write the metrics")).ok()
}

/// The answer to a request; `None` while it is not complete.
fn judge(received: &[u8], metrics: impl FnOnce() -> Option<String>) -> Option<String> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    Some(match request.parse(received) {
        Ok(httparse::Status::Partial) if received.len() < MAX_REQUEST => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            response("431 Request Header Fields Too Large", PLAIN, "too large\n")
        }
        Err(_) => response("400 Bad Request", PLAIN, "bad request\n"),
        Ok(httparse::Status::Complete(_)) if request.method != Some("GET") => {
            response("405 Method Not Allowed", PLAIN, "GET only\n")
        }
        Ok(httparse::Status::Complete(_)) => match request.path.and_then(|path| path.split('?').next()) {
            Some("/metrics") => match metrics() {
                Some(text) => response("200 OK", CONTENT_TYPE, &text),
                None => response("500 Internal Server Error", PLAIN, "the log has the reason\n"),
            },
            _ => response("404 Not Found", PLAIN, "there is /metrics\n"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &[u8]) -> Option<String> {
        let reply = judge(request, || Some("# EOF\n".into()))?;
        Some(reply.split(' ').nth(1).unwrap().to_owned())
    }

    #[test]
    fn get_metrics_is_all_there_is() {
        for (request, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Some("200")),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", Some("200")),
            ("GET / HTTP/1.1\r\n\r\n", Some("404")),
            ("POST /metrics HTTP/1.1\r\n\r\n", Some("405")),
            ("nonsense\r\n\r\n", Some("400")),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(request.as_bytes()).as_deref(), expected, "{request:?}");
        }
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(MAX_REQUEST));
        assert_eq!(status(long.as_bytes()).as_deref(), Some("431"));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
        assert_eq!(status(many.as_bytes()).as_deref(), Some("431"));
        assert_eq!(
            judge(b"GET /metrics HTTP/1.1\r\n\r\n", || None).map(|reply| reply.contains(" 500 ")),
            Some(true)
        );
    }
}
