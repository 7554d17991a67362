//! Where the load goes, and the refusal to send it anywhere but to this host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use thiserror::Error;
use tokio_tungstenite::tungstenite::http::Uri;

/// A server to load.
#[derive(Debug, Clone)]
pub struct Target {
    /// As given.
    pub url: String,
    /// The same, parsed.
    pub uri: Uri,
    /// Where its host is; IPv4 when there is a choice.
    pub address: SocketAddr,
    /// Its host, without brackets and port.
    pub host: String,
    /// `wss://`.
    pub tls: bool,
}

/// Why a URL is no target.
#[derive(Debug, Error)]
pub enum TargetError {
    /// It cannot be parsed or has no host.
    #[error("{0:?} is not a URL like ws://127.0.0.1:8080/echo")]
    Url(String),
    /// Some other scheme.
    #[error("{0:?} is not a ws:// or wss:// URL")]
    Scheme(String),
    /// The name has no address.
    #[error("cannot resolve {host:?}: {error}")]
    Resolve {
        /// The host in the URL.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// The host is not, or not only, this one.
    #[error("{host:?} is {address}, which is not loopback: --allow-remote permits loading other hosts")]
    Remote {
        /// The host in the URL.
        host: String,
        /// The first address that is not loopback.
        address: IpAddr,
    },
}

impl Target {
    /// Parses and resolves `url`. Unless `allow_remote`, every address of its host must be loopback.
    ///
    /// # Errors
    /// [`TargetError`], each with its reason.
    pub fn resolve(url: &str, allow_remote: bool) -> Result<Self, TargetError> {
        let malformed = || TargetError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            Some(_) => return Err(TargetError::Scheme(url.to_owned())),
            None => return Err(malformed()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let addresses: Vec<SocketAddr> = (bare.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| TargetError::Resolve { host: host.to_owned(), error })?
            .collect();
        let remote = addresses.iter().find(|address| !is_loopback(address));
        if let Some(address) = remote.filter(|_| !allow_remote) {
            return Err(TargetError::Remote { host: host.to_owned(), address: address.ip() });
        }
        let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        let address = *first.ok_or_else(|| TargetError::Resolve {
            host: host.to_owned(),
            error: io::Error::new(io::ErrorKind::NotFound, "no address"),
        })?;
        Ok(Self { url: url.to_owned(), uri, address, host: bare, tls })
    }

    /// Whether it is on this host's loopback.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.address)
    }

    /// The address a connection of `block` is to come from: one of 127.0.0.0/8 for each block, so that the 28,000
    /// ephemeral ports an address has never run out. `None`, the kernel's choice, unless the target is there too.
    pub(super) fn source(&self, block: u32) -> Option<SocketAddr> {
        let on_loopback = self.address.is_ipv4() && self.is_loopback();
        // .0 and .255 are left out: they look like network and broadcast addresses.
        let (high, low) = (block / 254 % 256, block % 254 + 1);
        on_loopback.then(|| (Ipv4Addr::new(127, 0, high as u8, low as u8), 0).into())
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_unless_allowed() {
        for url in ["ws://127.0.0.1:1/", "ws://127.3.2.1", "ws://[::1]:1/x", "ws://[::ffff:127.0.0.1]:1/"] {
            assert!(Target::resolve(url, false).is_ok(), "{url}");
        }
        for url in ["ws://192.0.2.1:1/", "wss://[2001:db8::1]:1/", "ws://0.0.0.0:1/"] {
            assert!(matches!(Target::resolve(url, false), Err(TargetError::Remote { .. })), "{url}");
            assert!(Target::resolve(url, true).is_ok(), "{url}");
        }
        assert!(matches!(Target::resolve("http://127.0.0.1/", false), Err(TargetError::Scheme(_))));
        assert!(matches!(Target::resolve("127.0.0.1:80", false), Err(TargetError::Url(_))));
    }

    #[test]
    fn the_scheme_says_whether_there_is_tls_and_the_port() {
        let target = Target::resolve("wss://127.0.0.1/", false).unwrap();
        assert!(target.tls && target.address.port() == 443);
        let target = Target::resolve("ws://[::1]/", false).unwrap();
        assert!(!target.tls && target.address.port() == 80 && target.host == "::1");
    }

    #[test]
    fn every_block_has_a_source_of_its_own() {
        let target = Target::resolve("ws://127.0.0.1:1/", false).unwrap();
        let source = |block| target.source(block).unwrap().ip().to_string();
        assert_eq!(
            (source(0), source(1), source(254)),
            ("127.0.0.1".into(), "127.0.0.2".into(), "127.0.1.1".into())
        );
        assert_eq!(Target::resolve("ws://[::1]:1/", false).unwrap().source(0), None);
    }
}
