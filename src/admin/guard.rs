//! Who may ask: a bearer token, or, without one, nobody whom a web page sends.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

use crate::bearer::{Token, bearer};

/// Who may ask on a listener.
#[derive(Clone, Debug)]
pub enum Guard {
    Token(Token),
    /// Whoever can open a connection: the socket's permissions decide.
    Anybody,
    /// Programs of this machine, but not web pages that a browser of this machine shows.
    NoPages,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No token, or a wrong one.
    Unauthorized,
    /// Host is a name that may have been made to point here (DNS rebinding).
    Host,
    /// A web page of another origin asks.
    Origin,
}

impl Guard {
    /// Judges a request by its target and header fields.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            Guard::Token(token) if bearer(headers).is_some_and(|offered| token.is(offered)) => Ok(()),
            Guard::Token(_) => Err(Refusal::Unauthorized),
            Guard::Anybody => Ok(()),
            Guard::NoPages => no_page(uri, headers),
        }
    }
}

/// A page can have a name resolved to this machine, and then counts as of the same origin; its requests carry that
/// name. Or it asks across origins and cannot read the answer, but what it asked for is done; such a request carries
/// the page's origin.
fn no_page(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::Host) };
    let host: Authority = host.to_str().ok().and_then(|host| host.parse().ok()).ok_or(Refusal::Host)?;
    if !is_local_name(&host) || uri.authority().is_some_and(|authority| *authority != host) {
        return Err(Refusal::Host);
    }
    for origin in headers.get_all(ORIGIN) {
        let same = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://")).is_some_and(|it| host == *it);
        if !same {
            return Err(Refusal::Origin);
        }
    }
    Ok(())
}

/// An address stands for itself, and `localhost` is never asked of a name server (RFC 6761 §6.3).
fn is_local_name(host: &Authority) -> bool {
    let name = host.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, uri: &str, fields: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let headers = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        guard.check(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn a_token_must_be_the_token() {
        let guard = Guard::Token(Token::new(b"secret"));
        for right in ["Bearer secret", "bearer secret", "Bearer  secret"] {
            assert_eq!(check(&guard, "/", &[("authorization", right)]), Ok(()), "{right}");
        }
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer Secret", "Bearer", "Bearer ", "Basic secret", "secret"]
        {
            let got = check(&guard, "/", &[("authorization", wrong)]);
            assert_eq!(got, Err(Refusal::Unauthorized), "{wrong}");
        }
        assert_eq!(check(&guard, "/", &[]), Err(Refusal::Unauthorized));
        let twice = [("authorization", "Bearer secret"), ("authorization", "Bearer other")];
        assert_eq!(check(&guard, "/", &twice), Err(Refusal::Unauthorized));
    }

    #[test]
    fn a_host_must_be_an_address_or_localhost() {
        for right in ["127.0.0.1:9180", "127.0.0.1", "[::1]:9180", "[::1]", "localhost", "LocalHost:9180"] {
            assert_eq!(check(&Guard::NoPages, "/", &[("host", right)]), Ok(()), "{right}");
        }
        for wrong in
            ["evil.example", "evil.example:9180", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"]
        {
            assert_eq!(check(&Guard::NoPages, "/", &[("host", wrong)]), Err(Refusal::Host), "{wrong}");
        }
        assert_eq!(check(&Guard::NoPages, "/", &[]), Err(Refusal::Host));
        assert_eq!(check(&Guard::NoPages, "http://evil.example/", &[("host", "127.0.0.1")]), Err(Refusal::Host));
        assert_eq!(check(&Guard::Anybody, "/", &[("host", "evil.example")]), Ok(()));
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let origin = |origin| check(&Guard::NoPages, "/", &[("host", "127.0.0.1:9180"), ("origin", origin)]);
        assert_eq!(origin("http://127.0.0.1:9180"), Ok(()));
        for wrong in ["http://evil.example", "null", "http://127.0.0.1:3000", "https://127.0.0.1:9180"] {
            assert_eq!(origin(wrong), Err(Refusal::Origin), "{wrong}");
        }
    }
}
