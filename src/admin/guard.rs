//! Who may ask: whoever has a bearer token or a certificate with a known name; where neither is asked for, nobody whom a
//! web page sends.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

use crate::bearer::{Token, bearer};
use crate::config::model::{Admin, AdminClient, Role};

/// Those who are known: by tokens that they prove to have, or by names in their certificates.
#[derive(Clone, Debug)]
pub struct Callers {
    tokens: Arc<[Known]>,
    /// By name.
    clients: Arc<[Caller]>,
}

struct Known {
    token: Token,
    caller: Caller,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's, or the one in the certificate. `None`: nobody is asked who they are, or it is the token without a name.
    pub name: Option<Arc<str>>,
    pub role: Role,
}

/// What a connection tells of who is at its other end.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// It speaks TLS.
    pub secure: bool,
    /// The names in its certificate, which has been verified.
    pub names: Arc<[String]>,
}

impl Callers {
    fn new(config: &Admin) -> Callers {
        let token = |secret: &[u8], name: Option<&str>, role| Known {
            token: Token::new(secret),
            caller: Caller { name: name.map(Arc::from), role },
        };
        let nameless = config.token.iter().map(|secret| token(&secret.0, None, Role::All));
        let named = config.tokens.iter().map(|it| token(&it.secret.0, Some(&it.name), it.role));
        let client = |it: &AdminClient| Caller { name: Some(Arc::from(it.identity.as_str())), role: it.role };
        Callers { tokens: nameless.chain(named).collect(), clients: config.clients.iter().map(client).collect() }
    }

    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.clients.is_empty()
    }

    /// Either suffices; what a request says itself counts before what its connection says.
    fn find(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Refusal> {
        let by_token = bearer(headers).and_then(|offered| self.by_token(offered));
        by_token.or_else(|| self.by_names(&peer.names)).cloned().ok_or(match self.tokens.is_empty() {
            true => Refusal::Unknown,
            false => Refusal::Unauthorized,
        })
    }

    /// Takes the same time whatever is wrong: every token is compared to its end, whichever is the right one.
    fn by_token(&self, offered: &[u8]) -> Option<&Caller> {
        let found = self.tokens.iter().zip(1..).fold(0, |found, (known, place)| {
            // All ones where it is the one. No two have the same secret.
            let same = usize::from(std::hint::black_box(known.token.is(offered))).wrapping_neg();
            std::hint::black_box(found | (place & same))
        });
        Some(&self.tokens.get(found.checked_sub(1)?)?.caller)
    }

    /// The first in the order of the configuration, where a certificate has the names of several.
    fn by_names(&self, names: &[String]) -> Option<&Caller> {
        let is_it = |name: &str| names.iter().any(|it| it == name);
        self.clients.iter().find(|caller| caller.name.as_deref().is_some_and(is_it))
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
    /// Whoever is one of these, as far as the role goes.
    Callers(Callers),
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
    /// No certificate, or one of nobody who is known; and tokens there are none.
    Unknown,
    /// Host is a name that may have been made to point here (DNS rebinding).
    Host,
    /// A web page of another origin asks.
    Origin,
}

impl Guard {
    pub fn new(config: &Admin, is_unix: bool) -> Guard {
        let callers = Callers::new(config);
        match is_unix {
            _ if !callers.is_empty() => Guard::Callers(callers),
            true => Guard::Anybody,
            false => Guard::NoPages,
        }
    }

    /// Judges a request by its target and header fields, and by its connection.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn check(&self, uri: &Uri, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Refusal> {
        const TRUSTED: Caller = Caller { name: None, role: Role::All };
        match self {
            Guard::Callers(callers) => callers.find(headers, peer),
            Guard::Anybody => Ok(TRUSTED),
            Guard::NoPages => no_page(uri, headers, peer.secure).map(|()| TRUSTED),
        }
    }
}

/// A page can have a name resolved to this machine, and then counts as of the same origin; its requests carry that
/// name. Or it asks across origins and cannot read the answer, but what it asked for is done; such a request carries
/// the page's origin.
fn no_page(uri: &Uri, headers: &HeaderMap, secure: bool) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::Host) };
    let host: Authority = host.to_str().ok().and_then(|host| host.parse().ok()).ok_or(Refusal::Host)?;
    if !is_local_name(&host) || uri.authority().is_some_and(|authority| *authority != host) {
        return Err(Refusal::Host);
    }
    let scheme = if secure { "https://" } else { "http://" };
    for origin in headers.get_all(ORIGIN) {
        let same = origin.to_str().ok().and_then(|origin| origin.strip_prefix(scheme)).is_some_and(|it| host == *it);
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
        Guard::new(&admin(Some(secret("secret")), tokens.into(), &[]), true)
    }

    fn admin(token: Option<Secret>, tokens: Vec<AdminToken>, clients: &[(&str, Role)]) -> Admin {
        let client = |(identity, role): &(&str, Role)| AdminClient { identity: (*identity).to_owned(), role: *role };
        let clients = clients.iter().map(client).collect();
        Admin { address: AdminAddress::Unix("/s".into()), token, tokens, tls: None, clients }
    }

    fn check(guard: &Guard, uri: &str, fields: &[(&'static str, &str)]) -> Result<Caller, Refusal> {
        let headers = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        guard.check(&uri.parse().unwrap(), &headers, &Peer::default())
    }

    /// What becomes of a client with these names, and perhaps a token.
    fn named(guard: &Guard, names: &[&str], token: Option<&str>) -> Result<(String, Role), Refusal> {
        let peer = Peer { secure: true, names: names.iter().map(|name| (*name).to_owned()).collect() };
        let token = token.map(|token| (http::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap()));
        let caller = guard.check(&Uri::from_static("/"), &token.into_iter().collect(), &peer)?;
        Ok((caller.name.as_deref().unwrap_or_default().to_owned(), caller.role))
    }

    #[test]
    fn a_client_is_known_by_any_of_its_names() {
        let clients = [("ops.example.com", Role::All), ("scraper", Role::Read)];
        let guard = Guard::new(&admin(None, Vec::new(), &clients), false);
        let ops = || Ok(("ops.example.com".to_owned(), Role::All));
        assert_eq!(named(&guard, &["ops.example.com"], None), ops());
        assert_eq!(named(&guard, &["x", "scraper"], None), Ok(("scraper".to_owned(), Role::Read)));
        // The configuration's order, not the certificate's.
        assert_eq!(named(&guard, &["scraper", "ops.example.com"], None), ops());
        for wrong in [&[][..], &["ops.example.co"], &["OPS.example.com"], &["*.example.com"], &[""]] {
            assert_eq!(named(&guard, wrong, None), Err(Refusal::Unknown), "{wrong:?}");
            assert_eq!(named(&guard, wrong, Some("secret")), Err(Refusal::Unknown), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_or_a_certificate_suffices() {
        let reader = AdminToken { name: "reader".to_owned(), secret: secret("read"), role: Role::Read };
        let guard = Guard::new(&admin(Some(secret("secret")), vec![reader], &[("ops", Role::Purge)]), false);
        assert_eq!(named(&guard, &["ops"], None), Ok(("ops".to_owned(), Role::Purge)));
        assert_eq!(named(&guard, &["ops"], Some("wrong")), Ok(("ops".to_owned(), Role::Purge)));
        assert_eq!(named(&guard, &["ops"], Some("read")), Ok(("reader".to_owned(), Role::Read)));
        assert_eq!(named(&guard, &[], Some("secret")), Ok((String::new(), Role::All)));
        assert_eq!(named(&guard, &["stranger"], None), Err(Refusal::Unauthorized));
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
        let headers = |origin: &str| {
            [(HOST, "127.0.0.1:9180"), (ORIGIN, origin)].map(|(name, value)| (name, value.parse().unwrap()))
        };
        let secure = |origin| {
            let (headers, peer) = (headers(origin).into_iter().collect(), Peer { secure: true, ..Peer::default() });
            Guard::NoPages.check(&Uri::from_static("/"), &headers, &peer)
        };
        assert!(secure("https://127.0.0.1:9180").is_ok());
        assert_eq!(secure("http://127.0.0.1:9180"), Err(Refusal::Origin));
    }
}
