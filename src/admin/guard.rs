//! Who may ask: whoever has a bearer token, or, where there is none, nobody whom a web page sends.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

use crate::bearer::{Token, bearer};
use crate::config::model::{Admin, Role};

/// The tokens that clients can prove to know.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Arc<[Known]>);

struct Known {
    token: Token,
    caller: Caller,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's. `None`: no token is asked for, or it is the one without a name.
    pub name: Option<Arc<str>>,
    pub role: Role,
}

impl Tokens {
    pub fn new(config: &Admin) -> Tokens {
        let token = |secret: &[u8], name: Option<&str>, role| Known {
            token: Token::new(secret),
            caller: Caller { name: name.map(Arc::from), role },
        };
        let nameless = config.token.iter().map(|secret| token(&secret.0, None, Role::All));
        let named = config.tokens.iter().map(|it| token(&it.secret.0, Some(&it.name), it.role));
        Tokens(nameless.chain(named).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the same time whatever is wrong: every token is compared to its end, whichever is the right one.
    fn find(&self, offered: &[u8]) -> Option<&Caller> {
        let found = self.0.iter().zip(1..).fold(0, |found, (known, place)| {
            // All ones where it is the one. No two have the same secret.
            let same = usize::from(std::hint::black_box(known.token.is(offered))).wrapping_neg();
            std::hint::black_box(found | (place & same))
        });
        Some(&self.0.get(found.checked_sub(1)?)?.caller)
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(… of {:?})", self.caller)
    }
}

/// Who may ask on a listener.
#[derive(Clone, Debug)]
pub enum Guard {
    /// Whoever has one of these, as far as its role goes.
    Tokens(Tokens),
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
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Refusal> {
        const TRUSTED: Caller = Caller { name: None, role: Role::All };
        match self {
            Guard::Tokens(tokens) => {
                bearer(headers).and_then(|offered| tokens.find(offered)).cloned().ok_or(Refusal::Unauthorized)
            }
            Guard::Anybody => Ok(TRUSTED),
            Guard::NoPages => no_page(uri, headers).map(|()| TRUSTED),
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
    use crate::config::model::{AdminAddress, AdminToken, Secret};

    fn secret(text: &str) -> Secret {
        Secret(text.as_bytes().to_vec(), "env:NAME".to_owned())
    }

    /// One without a name, and one with each role.
    fn guard() -> Guard {
        let tokens = Role::ALL.map(|role| AdminToken {
            name: format!("the {}", role.as_str()),
            secret: secret(&format!("secret of {}", role.as_str())),
            role,
        });
        let address = AdminAddress::Unix("/s".into());
        Guard::Tokens(Tokens::new(&Admin {
            address,
            token: Some(secret("secret")),
            tokens: tokens.into(),
            tls: None,
            clients: Vec::new(),
        }))
    }

    fn check(guard: &Guard, uri: &str, fields: &[(&'static str, &str)]) -> Result<Caller, Refusal> {
        let headers = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        guard.check(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn a_token_must_be_a_token() {
        let guard = guard();
        for right in ["Bearer secret", "bearer secret", "Bearer  secret"] {
            let caller = check(&guard, "/", &[("authorization", right)]);
            assert_eq!(caller, Ok(Caller { name: None, role: Role::All }), "{right}");
        }
        for wrong in [
            "Bearer secre",
            "Bearer secrets",
            "Bearer Secret",
            "Bearer secret of",
            "Bearer secret of nobody",
            "Bearer",
            "Bearer ",
            "Basic secret",
            "secret",
        ] {
            let got = check(&guard, "/", &[("authorization", wrong)]);
            assert_eq!(got, Err(Refusal::Unauthorized), "{wrong}");
        }
        assert_eq!(check(&guard, "/", &[]), Err(Refusal::Unauthorized));
        let twice = [("authorization", "Bearer secret"), ("authorization", "Bearer secret of read")];
        assert_eq!(check(&guard, "/", &twice), Err(Refusal::Unauthorized));
    }

    #[test]
    fn each_token_has_its_own_name_and_role() {
        let guard = guard();
        for role in Role::ALL {
            let word = role.as_str();
            let caller = check(&guard, "/", &[("authorization", &format!("Bearer secret of {word}"))]);
            assert_eq!(caller, Ok(Caller { name: Some(format!("the {word}").into()), role }));
        }
        assert!(!format!("{guard:?}").contains("secret"), "{guard:?}");
    }

    #[test]
    fn a_host_must_be_an_address_or_localhost() {
        for right in ["127.0.0.1:9180", "127.0.0.1", "[::1]:9180", "[::1]", "localhost", "LocalHost:9180"] {
            assert!(check(&Guard::NoPages, "/", &[("host", right)]).is_ok(), "{right}");
        }
        for wrong in
            ["evil.example", "evil.example:9180", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"]
        {
            assert_eq!(check(&Guard::NoPages, "/", &[("host", wrong)]), Err(Refusal::Host), "{wrong}");
        }
        assert_eq!(check(&Guard::NoPages, "/", &[]), Err(Refusal::Host));
        assert_eq!(check(&Guard::NoPages, "http://evil.example/", &[("host", "127.0.0.1")]), Err(Refusal::Host));
        assert!(check(&Guard::Anybody, "/", &[("host", "evil.example")]).is_ok());
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let origin = |origin| check(&Guard::NoPages, "/", &[("host", "127.0.0.1:9180"), ("origin", origin)]);
        assert!(origin("http://127.0.0.1:9180").is_ok());
        for wrong in ["http://evil.example", "null", "http://127.0.0.1:3000", "https://127.0.0.1:9180"] {
            assert_eq!(origin(wrong), Err(Refusal::Origin), "{wrong}");
        }
    }
}
