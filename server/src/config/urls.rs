//! URLs of members and listeners.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// A URL as etcd admits it: a scheme and `host:port`, or a path for a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    text: String,
    scheme_len: usize,
}

/// Where a listener binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Url {
    /// Reads one URL.
    ///
    /// # Errors
    /// A clause that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("{text:?} has no scheme, like http://127.0.0.1:2379"));
        };
        match scheme {
            "unix" | "unixs" if rest.is_empty() => Err(format!("{text:?} has no path")),
            "unix" | "unixs" => Ok(Self::of(text, scheme)),
            "http" | "https" => {
                if rest.contains(['/', '?', '#']) {
                    return Err(format!("{text:?} must end after the port"));
                }
                let (host, port) = rest
                    .rsplit_once(':')
                    .ok_or_else(|| format!("{text:?} has no port, like http://127.0.0.1:2379"))?;
                if host.is_empty() {
                    return Err(format!("{text:?} has no host"));
                }
                port.parse::<u16>().map_err(|_| format!("{text:?} has no valid port"))?;
                Ok(Self::of(text, scheme))
            }
            _ => Err(format!("{text:?} has a scheme that is none of http, https, unix and unixs")),
        }
    }

    fn of(text: &str, scheme: &str) -> Self {
        Self { text: text.to_owned(), scheme_len: scheme.len() }
    }

    /// Reads a comma-separated list; sorted, as etcd keeps it.
    ///
    /// # Errors
    /// As [`Url::parse`].
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut urls = text
            .split(',')
            .map(str::trim)
            .filter(|url| !url.is_empty())
            .map(Self::parse)
            .collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        Ok(urls)
    }

    /// The whole URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it asks for TLS.
    pub fn is_tls(&self) -> bool {
        self.text[..self.scheme_len].ends_with('s')
    }

    /// `host:port`, or the path of a Unix socket.
    pub fn authority(&self) -> &str {
        &self.text[self.scheme_len + "://".len()..]
    }

    /// The address to bind: the host must be an IP address or `localhost`.
    ///
    /// # Errors
    /// A clause that says what is wrong with it.
    pub fn listen_addr(&self) -> Result<ListenAddr, String> {
        if self.text.starts_with("unix") {
            return Ok(ListenAddr::Unix(PathBuf::from(self.authority())));
        }
        if let Some(port) = self.authority().strip_prefix("localhost:") {
            let port = port.parse().map_err(|_| format!("{:?} has no valid port", self.text))?;
            return Ok(ListenAddr::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        self.authority().parse().map(ListenAddr::Tcp).map_err(|_| {
            format!(
                "{:?} must have an IP address or localhost as its host, not a DNS name",
                self.text
            )
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_bind_to_addresses_and_never_to_names() {
        let cases = [
            ("http://localhost:2379", Ok("127.0.0.1:2379")),
            ("http://0.0.0.0:1", Ok("0.0.0.0:1")),
            ("https://[::1]:2379", Ok("[::1]:2379")),
            ("unix://run/q.sock", Ok("unix:run/q.sock")),
            ("http://example.org:2379", Err("DNS name")),
            ("http://127.0.0.1", Err("no port")),
            ("http://127.0.0.1:70000", Err("no valid port")),
            ("http://127.0.0.1:2379/", Err("end after the port")),
            ("127.0.0.1:2379", Err("no scheme")),
            ("ftp://127.0.0.1:2379", Err("scheme that is none of")),
            ("http://:2379", Err("no host")),
        ];
        for (text, expected) in cases {
            let found = Url::parse(text).and_then(|url| url.listen_addr());
            match (found, expected) {
                (Ok(addr), Ok(expected)) => assert_eq!(addr.to_string(), expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn lists_are_sorted_and_blanks_between_commas_do_not_count() {
        let urls = Url::parse_list("http://b:2,http://a:1 ,").unwrap();
        assert_eq!(urls.iter().map(Url::as_str).collect::<Vec<_>>(), ["http://a:1", "http://b:2"]);
        assert!(!urls[0].is_tls() && Url::parse("https://a:1").unwrap().is_tls());
    }
}
