//! TLS: the certificate, read again on SIGHUP, and what every connection starts from.

mod stream;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::server::TlsStream;
use tracing::{error, info};

pub(super) use stream::Sealed;

/// HTTP/2, as it is called in the handshake (RFC 9113 section 3.2).
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// A certificate and its key, and the files they come from.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    config: Mutex<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads both files: PEM, the certificate first in its chain.
    ///
    /// # Errors
    /// When one cannot be read, or they do not belong together.
    pub fn load(certificate: PathBuf, key: PathBuf) -> anyhow::Result<Self> {
        let config = Mutex::new(config(&certificate, &key)?);
        Ok(Self { certificate, key, config })
    }

    /// Reads the files again. Handshakes from now on get what they hold; if that is unusable, what there was.
    pub(super) fn reload(&self) {
        match config(&self.certificate, &self.key) {
            Ok(new) => {
                *self.config.lock().unwrap_or_else(PoisonError::into_inner) = new;
                info!(name: "certificate", file = %self.certificate.display(), "certificate read again");
            }
            Err(error) => {
                error!(name: "certificate_bad", error = format!("{error:#}"), "the certificate stays what it was");
            }
        }
    }

    /// Does the handshake.
    pub(super) async fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        TlsAcceptor::from(config).accept(tcp).await
    }
}

/// Whether the handshake chose HTTP/2.
pub(super) fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}

fn config(certificate: &PathBuf, key: &PathBuf) -> anyhow::Result<Arc<ServerConfig>> {
    let read = || format!("read {}", certificate.display());
    let chain = CertificateDer::pem_file_iter(certificate).with_context(read)?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().with_context(read)?;
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("read {}", key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("use {} with {}", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
    // A client that comes back brings what there is to remember, so the server remembers nothing. One ticket does.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}
