//! Making tokens: for `foreland sign`, and for the tests of what verifies them.

use std::fmt;

use http::Method;
use ipnet::IpNet;

use super::jwt::{Mac, Stated, below, exactly, token};
use super::{akamai, cloudflare, find, foreland, secure_link, take, verifier};
use crate::config::model::{Secret, UrlFormat, UrlKey};

/// What is to be signed, and what the token is to say.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The URL's scheme is https.
    pub secure: bool,
    /// Host and port in normal form, without a default port.
    pub authority: &'a str,
    /// As it will be sent, without a token.
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// In seconds since the epoch.
    pub now: u64,
    /// The last second in which the token holds.
    pub expires: Option<u64>,
    pub not_before: Option<u64>,
    /// The clients that may use it.
    pub client: Option<IpNet>,
    /// The folder that it is for, which ends with a slash and which the path begins with; `None`: for the path alone.
    pub prefix: Option<&'a str>,
    /// The methods that it is for; empty: GET and HEAD.
    pub methods: &'a [Method],
    /// The query parameters whose values it binds; `*`: the whole query.
    pub parameters: &'a [String],
    pub id: Option<&'a str>,
    pub place: Place,
}

/// Where a token is to stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Query,
    Path,
    Cookie,
}

/// What has been signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// Path and query, with the token.
    Target(String),
    /// A cookie: `NAME=TOKEN`.
    Cookie(String),
}

/// A part of a wish, that not every format can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Expires,
    NotBefore,
    Client,
    Prefix,
    Methods,
    Parameters,
    Id,
    InPath,
    InCookie,
}

/// Why nothing is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CannotSign {
    /// The format, by its name, has nothing of the kind.
    Unsupported(&'static str, Part),
    /// The format, or this key, does not do without.
    Needs(Part),
    /// What is asked for cannot be said in a token: why.
    Value(Part, &'static str),
    /// The URL cannot be signed, or not by this key: why.
    Impossible(String),
}

/// Signs with the first secret of a key.
///
/// # Errors
/// The key cannot, or the wish is none for its format.
pub fn sign(key: &UrlKey, wish: &Wish<'_>) -> Result<Signed, CannotSign> {
    if let Some(prefix) = wish.prefix
        && !(prefix.ends_with('/') && wish.path.starts_with(prefix))
    {
        return Err(CannotSign::Value(Part::Prefix, "a folder that the path begins with, with a slash at its end"));
    }
    unsigned(key, wish)?;
    match &key.format {
        UrlFormat::Foreland { secrets, parameter } => foreland::sign(secrets, parameter, wish),
        UrlFormat::SecureLink { secrets, expression, md5_parameter, expires_parameter } => {
            secure_link::sign(secrets, expression, md5_parameter, expires_parameter, wish)
        }
        UrlFormat::Akamai { .. } => akamai::sign(&key.format, wish),
        UrlFormat::Cloudflare { secrets, parameter, lifetime } => {
            cloudflare::sign(secrets, parameter, lifetime.as_secs(), wish)
        }
        UrlFormat::CloudFront { .. } => Err(CannotSign::Impossible(
            "the configuration has public keys for this format, and only their private halves can sign".to_owned(),
        )),
        UrlFormat::Jwt { secrets, parameter, issuers, audience, .. } => {
            let secret = secrets.first().ok_or_else(|| {
                CannotSign::Impossible(
                    "the key has no secret, and only the private halves of its keys can sign".to_owned(),
                )
            })?;
            jwt(secret, parameter, issuers.first().map(String::as_str), audience.as_deref(), wish)
        }
    }
}

/// A URL that has a token, or something in its place, would have two.
fn unsigned(key: &UrlKey, wish: &Wish<'_>) -> Result<(), CannotSign> {
    let verifier = verifier(key).map_err(CannotSign::Impossible)?;
    let places = verifier.places();
    let there = places.parameters.iter().find(|name| find::pieces(wish.query, name).next().is_some());
    if let Some(name) = there {
        return Err(CannotSign::Impossible(format!("the URL has a parameter {name:?} already")));
    }
    if places.path_prefix.as_ref().is_some_and(|prefix| take::from_path(wish.path, prefix).is_some()) {
        return Err(CannotSign::Impossible("the URL's path begins with a token already".to_owned()));
    }
    Ok(())
}

/// A token of RFC 9246, for a URL by its hash and for a prefix by a pattern.
fn jwt(
    secret: &Secret,
    parameter: &str,
    issuer: Option<&str>,
    audience: Option<&str>,
    wish: &Wish<'_>,
) -> Result<Signed, CannotSign> {
    let parts = [Part::Expires, Part::NotBefore, Part::Prefix, Part::Id, Part::InPath, Part::InCookie];
    wish.within("jwt", &parts)?;
    let expires = wish.expires.ok_or(CannotSign::Needs(Part::Expires))?;
    let root = format!("{}://{}", if wish.secure { "https" } else { "http" }, wish.authority);
    let container = match (wish.prefix, wish.query) {
        (Some(prefix), _) => below(&format!("{root}{prefix}")),
        (None, None) => exactly(&format!("{root}{}", wish.path)),
        (None, Some(query)) => exactly(&format!("{root}{}?{query}", wish.path)),
    };
    let container = container.map_err(|why| CannotSign::Impossible(why.to_owned()))?;
    let stated = Stated {
        issuer,
        audience,
        expires: Some(expires),
        not_before: wish.not_before,
        issued_at: Some(wish.now),
        id: wish.id,
        container: &container,
    };
    Ok(wish.placed(parameter, &token(&secret.0, Mac::Hs256, &stated)))
}

impl Wish<'_> {
    /// Whether the format has all that is wished for.
    pub(super) fn within(&self, format: &'static str, parts: &[Part]) -> Result<(), CannotSign> {
        let wished = [
            (Part::Expires, self.expires.is_some()),
            (Part::NotBefore, self.not_before.is_some()),
            (Part::Client, self.client.is_some()),
            (Part::Prefix, self.prefix.is_some()),
            (Part::Methods, !self.methods.is_empty()),
            (Part::Parameters, !self.parameters.is_empty()),
            (Part::Id, self.id.is_some()),
            (Part::InPath, self.place == Place::Path),
            (Part::InCookie, self.place == Place::Cookie),
        ];
        match wished.iter().find(|(part, is)| *is && !parts.contains(part)) {
            Some((part, _)) => Err(CannotSign::Unsupported(format, *part)),
            None => Ok(()),
        }
    }

    /// The token in its place. It must need no encoding there.
    pub(super) fn placed(&self, parameter: &str, token: &str) -> Signed {
        let rest = self.query.map(|query| format!("?{query}")).unwrap_or_default();
        match self.place {
            Place::Cookie => Signed::Cookie(format!("{parameter}={token}")),
            Place::Path => Signed::Target(format!("/{parameter}={token}{}{rest}", self.path)),
            Place::Query => self.with_query(&format!("{parameter}={token}")),
        }
    }

    /// The target with this behind its query.
    pub(super) fn with_query(&self, parameters: &str) -> Signed {
        Signed::Target(match self.query {
            None => format!("{}?{parameters}", self.path),
            Some("") => format!("{}?{parameters}", self.path),
            Some(query) => format!("{}?{query}&{parameters}", self.path),
        })
    }
}

/// One address rather than a network.
pub(super) fn single(client: IpNet) -> Option<std::net::IpAddr> {
    (client.prefix_len() == client.max_prefix_len()).then(|| client.addr())
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Expires => "an end",
            Part::NotBefore => "a begin",
            Part::Client => "an address of the client",
            Part::Prefix => "a prefix",
            Part::Methods => "methods",
            Part::Parameters => "a choice of query parameters",
            Part::Id => "an id",
            Part::InPath => "a place in the path",
            Part::InCookie => "a place in a cookie",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::guard::signed::testing::Request;

    const NOW: u64 = 1_767_286_800;

    fn key(format: UrlFormat) -> UrlKey {
        UrlKey { name: Arc::from("k"), format, expired: StatusCode::FORBIDDEN, skew: Duration::ZERO }
    }

    fn secrets() -> Vec<Secret> {
        vec![Secret(b"secret".to_vec(), String::new())]
    }

    fn jwt_key() -> UrlKey {
        key(UrlFormat::Jwt {
            secrets: secrets(),
            keys: Vec::new(),
            parameter: "URISigningPackage".to_owned(),
            issuers: vec!["me".to_owned(), "you".to_owned()],
            audience: Some("cdn".to_owned()),
        })
    }

    fn foreland_key() -> UrlKey {
        key(UrlFormat::Foreland { secrets: secrets(), parameter: "token".to_owned() })
    }

    fn wish(path: &str) -> Wish<'_> {
        Wish {
            secure: true,
            authority: "cdn.example",
            path,
            query: None,
            now: NOW,
            expires: Some(NOW + 60),
            not_before: None,
            client: None,
            prefix: None,
            methods: &[],
            parameters: &[],
            id: None,
            place: Place::Query,
        }
    }

    fn holds(key: &UrlKey, request: &Request) -> bool {
        verifier(key).expect("a verifier").verify(&request.presented(), NOW).is_ok()
    }

    #[test]
    fn a_jwt_is_for_its_url_or_folder() {
        let key = jwt_key();
        let prefix = Some("URISigningPackage=");
        let Ok(Signed::Target(target)) = sign(&key, &Wish { query: Some("w=1"), id: Some("x"), ..wish("/a/b") }) else {
            panic!("no signature")
        };
        assert!(holds(&key, &Request::target(&target, prefix)));
        assert!(!holds(&key, &Request::target(&target.replace("w=1", "w=2"), prefix)));
        let folder = Wish { prefix: Some("/a/"), place: Place::Path, ..wish("/a/b.m3u8") };
        let Ok(Signed::Target(target)) = sign(&key, &folder) else { panic!("no signature") };
        assert!(holds(&key, &Request::target(&target.replace("b.m3u8", "c/1.ts?x"), prefix)));
        assert!(!holds(&key, &Request::target(&target.replace("/a/b.m3u8", "/b/c"), prefix)));
        let unsupported = sign(&key, &Wish { methods: &[Method::PUT], ..wish("/a") });
        assert_eq!(unsupported, Err(CannotSign::Unsupported("jwt", Part::Methods)));
    }

    #[test]
    fn every_place_is_found_again() {
        let key = foreland_key();
        for place in [Place::Query, Place::Path, Place::Cookie] {
            let request = match sign(&key, &Wish { place, query: Some("x=1"), ..wish("/a") }) {
                Ok(Signed::Target(target)) => Request::target(&target, Some("token=")),
                Ok(Signed::Cookie(cookie)) => Request::get("/a").header("cookie", &cookie),
                Err(why) => panic!("{why:?}"),
            };
            assert_eq!(request.path, "/a");
            assert!(holds(&key, &request), "{place:?}");
        }
        assert_eq!(wish("/a").with_query("b"), Signed::Target("/a?b".to_owned()));
        assert_eq!(Wish { query: Some(""), ..wish("/a") }.with_query("b"), Signed::Target("/a?b".to_owned()));
    }

    #[test]
    fn what_cannot_be_signed() {
        let key = foreland_key();
        for prefix in ["/a", "/b/", "a/", ""] {
            let wrong = sign(&key, &Wish { prefix: Some(prefix), ..wish("/a/b") });
            assert!(matches!(wrong, Err(CannotSign::Value(Part::Prefix, _))), "{prefix}");
        }
        let twice = sign(&key, &Wish { query: Some("%74oken=x"), ..wish("/a") });
        assert!(matches!(twice, Err(CannotSign::Impossible(_))), "{twice:?}");
        assert!(matches!(sign(&key, &wish("/token=x/a")), Err(CannotSign::Impossible(_))));
        let public = sign(&self::key(UrlFormat::CloudFront { keys: Vec::new() }), &wish("/a"));
        assert!(matches!(public, Err(CannotSign::Impossible(_))), "{public:?}");
    }
}
