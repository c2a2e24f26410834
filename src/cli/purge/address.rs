//! Where the admin listener is, and a connection to it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::tls::Tls;

/// The admin listener of an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp {
        /// https.
        secure: bool,
        /// As it was given: for the field Host.
        authority: Authority,
        /// A name or an address, without brackets.
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// What a connection is, whatever carries it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Address {
    /// Where an edge of this machine has its admin listener.
    pub const DEFAULT: &str = "http://127.0.0.1:9180";

    /// Whether TLS is spoken there.
    pub fn is_secure(&self) -> bool {
        matches!(self, Address::Tcp { secure: true, .. })
    }

    /// `tls`: where it [is secure](Address::is_secure).
    ///
    /// # Errors
    /// The system's, or TLS's. A name that has several addresses is tried at each of them.
    pub async fn connect(&self, tls: Option<&Tls>) -> io::Result<Box<dyn Stream>> {
        match self {
            Address::Tcp { secure, host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                // Requests are written in few pieces; to wait for more would only delay them.
                stream.set_nodelay(true)?;
                match tls {
                    Some(tls) if *secure => Ok(Box::new(tls.connect(host, stream).await?)),
                    // Nothing is ever said in the clear that was to be secret.
                    None if *secure => Err(io::Error::other("https without TLS")),
                    _ => Ok(Box::new(stream)),
                }
            }
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        }
    }

    /// The field Host. A socket has no name, and whoever may open it is not asked for one.
    pub fn host_field(&self) -> &str {
        match self {
            Address::Tcp { authority, .. } => authority.as_str(),
            Address::Unix(_) => "localhost",
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("the path of the socket is missing: unix:/path/to/socket".to_owned()),
                _ if path.contains('\0') => Err("a path has no null character".to_owned()),
                _ => Ok(Address::Unix(path.into())),
            };
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("expected http://ADDRESS:PORT, https://ADDRESS:PORT or unix:/path/to/socket".to_owned());
        };
        let secure = scheme.eq_ignore_ascii_case("https");
        if !secure && !scheme.eq_ignore_ascii_case("http") {
            return Err("expected http://, https:// or unix:".to_owned());
        }
        if rest.contains('@') {
            return Err("no user and no password belong here: the token comes from FORELAND_ADMIN_TOKEN".to_owned());
        }
        let authority: Authority = rest
            .strip_suffix('/')
            .unwrap_or(rest)
            .parse()
            .map_err(|_| "expected a name or an address, perhaps with a port, and nothing after it".to_owned())?;
        let (host, port) = host_and_port(&authority, if secure { 443 } else { 80 })?;
        Ok(Address::Tcp { secure, host, port, authority })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { secure: false, authority, .. } => write!(f, "http://{authority}"),
            Address::Tcp { secure: true, authority, .. } => write!(f, "https://{authority}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Without a port, the scheme's own (RFC 9110 §4.2.1).
fn host_and_port(authority: &Authority, usual: u16) -> Result<(String, u16), String> {
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host) {
        Some("") => usual,
        Some(port) => port
            .strip_prefix(':')
            .and_then(|port| port.parse().ok())
            .filter(|port| *port > 0)
            .ok_or("a port is a number from 1 to 65535")?,
        None => return Err("expected a name or an address, perhaps with a port".to_owned()),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err("the name or address before the port is missing".to_owned());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> (String, u16, String) {
        match text.parse() {
            Ok(Address::Tcp { secure: false, host, port, authority }) => (host, port, authority.to_string()),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn right_ones() {
        let expected = |host: &str, port, authority: &str| (host.to_owned(), port, authority.to_owned());
        assert_eq!(tcp(Address::DEFAULT), expected("127.0.0.1", 9180, "127.0.0.1:9180"));
        assert_eq!(tcp("HTTP://localhost:1/"), expected("localhost", 1, "localhost:1"));
        assert_eq!(tcp("http://[::1]:9180"), expected("::1", 9180, "[::1]:9180"));
        assert_eq!(tcp("http://edge-1.example"), expected("edge-1.example", 80, "edge-1.example"));
        assert_eq!("unix:/run/a b".parse(), Ok(Address::Unix("/run/a b".into())));
        assert_eq!("unix:a.sock".parse(), Ok(Address::Unix("a.sock".into())));
        for (text, port) in [("https://a", 443), ("HTTPS://a:9180", 9180)] {
            let address: Address = text.parse().unwrap();
            assert!(address.is_secure() && matches!(address, Address::Tcp { port: at, .. } if at == port), "{text}");
        }
        for text in ["http://[::1]:9180", "https://a:9180", "unix:/run/foreland/admin"] {
            assert_eq!(text.parse::<Address>().map(|it| it.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn wrong_ones() {
        for (text, why) in [
            ("", "expected http://"),
            ("127.0.0.1:9180", "expected http://"),
            ("ftp://a", "expected http://"),
            ("https://", "expected a name"),
            ("https://a:0", "a port is"),
            ("http://", "expected a name"),
            ("http://:9180", "expected a name|is missing"),
            ("http://a:0", "a port is"),
            ("http://a:65536", "a port is"),
            ("http://a:", "a port is"),
            ("http://a:b", "a port is|expected a name"),
            ("http://a/v1/purge", "nothing after it"),
            ("http://a?b", "nothing after it"),
            ("http://me:secret@a", "FORELAND_ADMIN_TOKEN"),
            ("unix:", "path of the socket"),
            ("unix:a\0b", "null"),
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert!(why.split('|').any(|why| error.contains(why)), "{text}: {error}");
        }
    }
}
