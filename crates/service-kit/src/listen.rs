//! The address a listener is opened on, as people write it: `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080`, or a port
//! alone.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::net::TcpListener;

/// The host of a port that stands alone: a listener without authentication is not reachable from other hosts by
/// accident.
const LOOPBACK: &str = "127.0.0.1";

/// A host, by name or number, and a port. Port 0 takes a free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

/// Why a text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address to listen on: write `HOST:PORT`, `[IPV6]:PORT`, or a port alone for loopback")]
pub struct NotAnAddress {
    text: String,
}

impl ListenAddress {
    /// `port` on loopback.
    pub fn loopback(port: u16) -> Self {
        Self { host: LOOPBACK.to_owned(), port }
    }

    /// Opens a listener on the first address that the host resolves to and that can be bound.
    ///
    /// # Errors
    /// The host has no address, or none of its addresses can be bound.
    pub async fn bind(&self) -> io::Result<TcpListener> {
        // Resolved with each call, not when the configuration is read: names may change their addresses.
        TcpListener::bind((self.host.as_str(), self.port)).await
    }
}

/// Warns when `address` is not on loopback, because every host that reaches it is answered.
pub fn warn_if_reachable(address: SocketAddr) {
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "this listener is reachable from other hosts and authenticates no one: \
             listen on 127.0.0.1, or put a proxy that authenticates before it"
        );
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for ListenAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        address_of(text).ok_or_else(|| NotAnAddress { text: text.to_owned() })
    }
}

/// The address that a text gives; `None` where it gives none.
fn address_of(text: &str) -> Option<ListenAddress> {
    // First, because the colons of an IPv6 address are not separators of a port.
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.into());
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = port.parse().ok()?;
    let host = if host.is_empty() { LOOPBACK } else { host };
    // RFC 1123, section 2.1; `_` occurs in names that container runtimes give.
    let is_name = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    is_name.then(|| ListenAddress { host: host.to_owned(), port })
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(host)) => write!(f, "[{host}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_a_name_or_a_port_alone_can_be_listened_on() {
        let shown = |text: &str| text.parse::<ListenAddress>().map(|address| address.to_string());
        assert_eq!(shown("19060").unwrap(), "127.0.0.1:19060");
        assert_eq!(shown(":19060").unwrap(), "127.0.0.1:19060");
        assert_eq!(shown("localhost:19060").unwrap(), "localhost:19060");
        assert_eq!(shown("0.0.0.0:1").unwrap(), "0.0.0.0:1");
        assert_eq!(shown("[::1]:8080").unwrap(), "[::1]:8080");
        for wrong in ["", "host", "a:b", "host:70000", "::1:80", "http://x:80", "a b:80"] {
            assert!(shown(wrong).unwrap_err().to_string().contains("write `HOST:PORT`"), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_name_is_resolved_when_the_listener_opens() {
        let listener = "localhost:0".parse::<ListenAddress>().unwrap().bind().await.unwrap();
        assert!(listener.local_addr().unwrap().ip().is_loopback());
        let unknown = "no-such-host.invalid:0".parse::<ListenAddress>().unwrap();
        assert!(unknown.bind().await.is_err());
    }
}
