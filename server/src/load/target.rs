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
}

/// Why a URL is no target.
#[derive(Debug, Error)]
pub enum TargetError {
    /// It cannot be parsed or has no host.
    #[error("{0:?} is not a URL like ws://127.0.0.1:8080/echo")]
    Url(String),
    /// TLS is not there yet.
    #[error("wss:// is not supported yet: use ws://")]
    Tls,
    /// Some other scheme.
    #[error("{0:?} is not a ws:// URL")]
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
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") => return Err(TargetError::Tls),
            Some(_) => return Err(TargetError::Scheme(url.to_owned())),
            None => return Err(malformed()),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> = (bare, uri.port_u16().unwrap_or(80))
            .to_socket_addrs()
            .map_err(|error| TargetError::Resolve { host: host.to_owned(), error })?
            .collect();
        let remote = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
        if let Some(address) = remote.filter(|_| !allow_remote) {
            return Err(TargetError::Remote { host: host.to_owned(), address: address.ip() });
        }
        let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        let address = *first.ok_or_else(|| TargetError::Resolve {
            host: host.to_owned(),
            error: io::Error::new(io::ErrorKind::NotFound, "no address"),
        })?;
        Ok(Self { url: url.to_owned(), uri, address })
    }

    /// The address connection `index` is to come from: every 256 connections another one of 127.0.0.0/8, so that the
    /// 28,000 ephemeral ports an address has never run out. `None`, the kernel's choice, unless the target is there too.
    pub(super) fn source(&self, index: u32) -> Option<SocketAddr> {
        let on_loopback = self.address.is_ipv4() && self.address.ip().is_loopback();
        let block = index / 256;
        // .0 and .255 are left out: they look like network and broadcast addresses.
        let (high, low) = (block / 254 % 256, block % 254 + 1);
        on_loopback.then(|| (Ipv4Addr::new(127, 0, high as u8, low as u8), 0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_unless_allowed() {
        for url in ["ws://127.0.0.1:1/", "ws://127.3.2.1", "ws://[::1]:1/x", "ws://[::ffff:127.0.0.1]:1/"] {
            assert!(Target::resolve(url, false).is_ok(), "{url}");
        }
        for url in ["ws://192.0.2.1:1/", "ws://[2001:db8::1]:1/", "ws://0.0.0.0:1/"] {
            assert!(matches!(Target::resolve(url, false), Err(TargetError::Remote { .. })), "{url}");
            assert!(Target::resolve(url, true).is_ok(), "{url}");
        }
        assert!(matches!(Target::resolve("wss://127.0.0.1/", false), Err(TargetError::Tls)));
        assert!(matches!(Target::resolve("http://127.0.0.1/", false), Err(TargetError::Scheme(_))));
        assert!(matches!(Target::resolve("127.0.0.1:80", false), Err(TargetError::Url(_))));
    }

    #[test]
    fn sources_change_every_256_connections() {
        let target = Target::resolve("ws://127.0.0.1:1/", false).unwrap();
        let source = |index| target.source(index).unwrap().ip().to_string();
        assert_eq!(
            (source(0), source(255), source(256)),
            ("127.0.0.1".into(), "127.0.0.1".into(), "127.0.0.2".into())
        );
        assert_eq!(source(254 * 256), "127.0.1.1");
        assert_eq!(Target::resolve("ws://[::1]:1/", false).unwrap().source(0), None);
    }
}
