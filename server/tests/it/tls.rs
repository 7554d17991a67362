//! wss: both versions of HTTP over TLS, and certificates that change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use futures_util::{SinkExt, StreamExt};

use crate::http2::client::Peer;
use crate::raw::{FIN, PING, TEXT};
use crate::support::{PATIENCE, Process, SERVER, TestServer, bounded};

/// A certificate for localhost and its key, in files.
pub(crate) struct Identity {
    folder: TempDir,
    der: CertificateDer<'static>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let der = write(&folder);
        Self { folder, der }
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Replaces it by another.
    fn renew(&mut self) {
        self.der = write(&self.folder);
    }

    /// A server without TLS and with it: its plain URL is the [`TestServer`]'s, and this the other one's address.
    pub(crate) fn serve(&self, arguments: &[&str]) -> (TestServer, String) {
        let (certificate, key) = (self.certificate(), self.key());
        let tls = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        let server = TestServer::start(&[&["--listen", "wss://127.0.0.1:0"], &tls[..], arguments].concat());
        let line = server.process.line();
        let address = line.strip_prefix("listening on wss://").expect("a line for each socket").to_owned();
        (server, address)
    }

    /// A connection by a client that trusts nothing but this.
    async fn connect(&self, address: &str, protocols: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.expect("a handshake")
    }

    async fn websocket(&self, address: &str, protocols: &[&[u8]]) -> WebSocketStream<TlsStream<TcpStream>> {
        let tls = self.connect(address, protocols).await.unwrap();
        let url = format!("wss://{address}/echo");
        tokio_tungstenite::client_async(url, tls).await.unwrap().0
    }
}

fn write(folder: &TempDir) -> CertificateDer<'static> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    std::fs::write(folder.path().join("certificate.pem"), cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

async fn echo(client: &mut WebSocketStream<TlsStream<TcpStream>>, message: Message) {
    client.send(message.clone()).await.unwrap();
    let echoed = timeout(PATIENCE, client.next()).await.expect("an echo").unwrap().unwrap();
    assert_eq!(echoed, message);
}

#[test]
fn http1_inside_tls_echoes_any_size_and_closes() {
    bounded(async {
        let identity = Identity::new();
        let (server, address) = identity.serve(&["--idle-after", "50ms"]);
        for protocols in [&[][..], &[&b"http/1.1"[..]]] {
            let mut client = identity.websocket(&address, protocols).await;
            for size in [0, 1, 125, 126, 16_384, 65_536, 1 << 20] {
                echo(&mut client, Message::binary(vec![7; size])).await;
            }
            // Idle for some periods, and back.
            tokio::time::sleep(Duration::from_millis(300)).await;
            echo(&mut client, Message::text("after a pause")).await;
            client.close(None).await.unwrap();
            assert!(client.next().await.unwrap().unwrap().is_close());
            assert!(client.next().await.is_none());
        }
        let (_, page) = Peer::connect(server.address()).await.get("/").await;
        assert!(page.contains("<th>HTTP/1.1 over TLS<td>0<td>2"), "{page}");
    });
}

#[test]
fn idle_tls_connections_are_pinged_and_told_of_the_end() {
    bounded(async {
        let identity = Identity::new();
        let (server, address) = identity.serve(&["--ping-interval", "200ms", "--drain-timeout", "10s"]);
        let mut client = identity.websocket(&address, &[]).await;
        for _ in 0..3 {
            assert!(timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap().is_ping());
            client.flush().await.unwrap();
        }
        server.process.signal(Signal::TERM);
        let Message::Close(Some(frame)) = (loop {
            match client.next().await.unwrap().unwrap() {
                Message::Ping(_) => {}
                other => break other,
            }
        }) else {
            panic!("no close")
        };
        assert_eq!(u16::from(frame.code), 1001);
        assert!(client.next().await.is_none());
        assert_eq!(server.process.end().status.code(), Some(0));
    });
}

#[test]
fn alpn_chooses_http2_where_the_client_has_it() {
    bounded(async {
        let identity = Identity::new();
        let (server, address) = identity.serve(&["--ping-interval", "300ms"]);
        for protocols in [&[&b"h2"[..]][..], &[b"http/1.1", b"h2"]] {
            let tls = identity.connect(&address, protocols).await.unwrap();
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let peer = Peer::over(tls, &address).await;
            let mut stream = peer.open("/echo").await;
            for size in [0, 4_000, 65_000] {
                stream.echo(TEXT, "x".repeat(size).as_bytes()).await;
            }
            assert_eq!(peer.get("/healthz").await, (200, "ok\n".into()));
            assert_eq!(stream.next().await, Some((FIN | PING, Vec::new())));
        }
        let (_, page) = Peer::connect(server.address()).await.get("/").await;
        let row = "<th>HTTP/2 over TLS<td>";
        let counts = page.split(row).nth(1).and_then(|rest| rest.lines().next()).unwrap();
        assert!(counts.ends_with("<td>2"), "{page}");
        // Nothing in common: no handshake.
        assert!(identity.connect(&address, &[b"h3"]).await.is_err());
    });
}

#[test]
fn sighup_brings_the_new_certificate_and_a_bad_file_keeps_the_old_one() {
    bounded(async {
        let mut identity = Identity::new();
        let (server, address) = identity.serve(&[]);
        let mut before = identity.websocket(&address, &[]).await;
        let first = identity.der.clone();
        identity.renew();
        assert_ne!(first, identity.der);
        assert!(identity.connect(&address, &[]).await.is_err(), "not before it is told");
        server.process.signal(Signal::HUP);
        accepted(&identity, &address).await;
        // What is open does not notice.
        echo(&mut before, Message::text("still here")).await;
        std::fs::write(identity.certificate(), "no certificate").unwrap();
        server.process.signal(Signal::HUP);
        tokio::time::sleep(Duration::from_millis(300)).await;
        identity.connect(&address, &[]).await.unwrap();
        drop(before);
        server.process.signal(Signal::TERM);
        let ended = server.process.end();
        let bad = ended.stderr.lines().filter(|line| line.contains("ERROR")).collect::<Vec<_>>();
        assert!(matches!(bad[..], [line] if line.contains("certificate.pem")), "{}", ended.stderr);
    });
}

async fn accepted(identity: &Identity, address: &str) {
    let deadline = Instant::now() + PATIENCE;
    while identity.connect(address, &[]).await.is_err() {
        assert!(Instant::now() < deadline, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn slow_handshakes_of_tls_do_not_stay() {
    bounded(async {
        let identity = Identity::new();
        let (_server, address) = identity.serve(&["--handshake-timeout", "400ms"]);
        // Silence, half a hello, and a handshake after which nothing is asked.
        for bytes in [&b""[..], &[22, 3, 1, 2, 0, 1]] {
            let mut tcp = TcpStream::connect(&address).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut tcp, bytes).await.unwrap();
            let started = Instant::now();
            let mut scratch = [0; 64];
            while timeout(PATIENCE, tcp.read(&mut scratch))
                .await
                .expect("an end")
                .is_ok_and(|count| count > 0)
            {}
            assert!((350..3_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        }
        for protocols in [&[][..], &[&b"h2"[..]]] {
            let mut tls = identity.connect(&address, protocols).await.unwrap();
            let started = Instant::now();
            let mut scratch = [0; 64];
            while timeout(PATIENCE, tls.read(&mut scratch))
                .await
                .expect("an end")
                .is_ok_and(|count| count > 0)
            {}
            assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        }
    });
}

#[test]
fn what_is_wrong_with_the_files_is_said() {
    let identity = Identity::new();
    let (certificate, key) = (identity.certificate(), identity.key());
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let other = Identity::new();
    let listen = ["--listen", "wss://127.0.0.1:0"];
    for (arguments, code, text) in [
        (&[][..], 64, "--tls-certificate"),
        (&["--tls-certificate", certificate], 64, "--tls-key"),
        (&["--tls-certificate", "/nonexistent", "--tls-key", key], 78, "/nonexistent"),
        (&["--tls-certificate", certificate, "--tls-key", other.key().to_str().unwrap()], 78, certificate),
    ] {
        let ended = Process::start(SERVER, &[&listen[..], arguments].concat()).end();
        assert_eq!(ended.status.code(), Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(text), "{}", ended.stderr);
    }
}
