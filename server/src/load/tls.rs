//! TLS towards the server: whom to trust, and what to ask for by ALPN.

use std::io;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{self, CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, client::Resumption,
};

use super::client::OpenError;
use super::target::Target;

/// What is offered by ALPN over HTTP/1.1 and over HTTP/2.
pub(super) const ALPN_HTTP1: &[u8] = b"http/1.1";
pub(super) const ALPN_HTTP2: &[u8] = b"h2";

/// Whose certificates are trusted.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Those signed by one in this PEM file.
    File(&'a Path),
    /// Any whatever: for tests.
    Anyone,
}

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file of trusted certificates is of no use.
    #[error("no certificates in {file:?}: {reason}")]
    File {
        /// Its name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// rustls refuses the settings.
    #[error("TLS: {0}")]
    Config(#[from] rustls::Error),
}

/// Opens TLS connections.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    alpn: &'static [u8],
}

impl Tls {
    /// To ask for HTTP/2, or for HTTP/1.1.
    ///
    /// # Errors
    /// [`TlsError`], each with its reason.
    pub fn new(trust: Trust<'_>, http2: bool) -> Result<Self, TlsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let mut config = match trust {
            Trust::File(file) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
            Trust::Anyone => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
                .with_no_client_auth(),
        };
        let alpn = if http2 { ALPN_HTTP2 } else { ALPN_HTTP1 };
        config.alpn_protocols = vec![alpn.to_vec()];
        // Every handshake is to be a whole one, as those of different clients are.
        config.resumption = Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), alpn })
    }

    pub(super) async fn connect(
        &self,
        target: &Target,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, OpenError> {
        let name = ServerName::try_from(target.host.clone())
            .map_err(|error| OpenError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = self.connector.connect(name, tcp).await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => OpenError::Tls(error),
            _ => OpenError::Io(error),
        })?;
        match stream.get_ref().1.alpn_protocol() {
            Some(chosen) if chosen == self.alpn => Ok(stream),
            // HTTP/1.1 is what a server speaks that has not heard of ALPN.
            None if self.alpn == ALPN_HTTP1 => Ok(stream),
            _ => Err(OpenError::Alpn),
        }
    }
}

fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let wrong = |reason: String| TlsError::File { file: file.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("it has none".into())) } else { Ok(roots) }
}

/// Trusts any certificate; that its holder has the key is still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
