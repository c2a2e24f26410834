//! Which server a request belongs to, where an origin sends like to like.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::COOKIE;

use crate::config::model::{Balance, HashKey};
use crate::origin::{self, StableHash, Sticky};
use crate::site::{Key, normalise_path};

/// What of a request can matter.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub headers: &'a HeaderMap,
    /// `None`: the cache has no part in it.
    pub key: Option<&'a Key>,
    /// Host and port, normalised.
    pub host: &'a str,
    /// Path and query, as the origin is asked for them.
    pub target: &'a str,
    /// As seen through trusted proxies.
    pub client: IpAddr,
}

/// What [`origin::Ask`] gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    pub hash: Option<u64>,
    pub stays_with: Option<u64>,
}

/// The request's hash for `balance`, and the server that its cookie names. `now`: seconds since 1970.
pub fn ask_of(request: &Request<'_>, balance: &Balance, sticky: Option<&Sticky>, now: u64) -> Affinity {
    let lines = || request.headers.get_all(COOKIE).iter().map(|line| line.as_bytes());
    Affinity { hash: hash_of(request, balance), stays_with: sticky.and_then(|sticky| sticky.read(lines(), now)) }
}

fn hash_of(request: &Request<'_>, balance: &Balance) -> Option<u64> {
    let key = match balance {
        Balance::IpHash => &HashKey::ClientIp,
        Balance::ConsistentHash { key, .. } => key,
        Balance::RoundRobin
        | Balance::Random
        | Balance::LeastRequests { .. }
        | Balance::LeastLatency
        | Balance::Failover => return None,
    };
    match key {
        HashKey::CacheKey => Some(match request.key {
            Some(key) => StableHash::new().with(&key.hash).finish(),
            None => by_url(request, true),
        }),
        HashKey::Path => Some(by_url(request, false)),
        HashKey::ClientIp => Some(by_address(request.client)),
        HashKey::Header(name) => {
            let mut lines = request.headers.get_all(name).iter().map(|line| line.as_bytes()).peekable();
            lines.peek()?;
            Some(lines.fold(StableHash::new(), StableHash::part).finish())
        }
        HashKey::Cookie(name) => {
            let mut lines = request.headers.get_all(COOKIE).iter();
            let value = lines.find_map(|line| origin::cookies(line.as_bytes(), name).next())?;
            Some(StableHash::new().with(value).finish())
        }
    }
}

fn by_url(request: &Request<'_>, with_query: bool) -> u64 {
    let (path, query) = match request.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.target, None),
    };
    let url = StableHash::new().part(request.host.as_bytes()).part(normalise_path(path).as_bytes());
    match query {
        Some(query) if with_query => url.part(query.as_bytes()).finish(),
        _ => url.finish(),
    }
}

/// The same address is the same client, in whichever family it came.
fn by_address(address: IpAddr) -> u64 {
    let hash = StableHash::new();
    match address.to_canonical() {
        IpAddr::V4(address) => hash.with(&address.octets()),
        IpAddr::V6(address) => hash.with(&address.octets()),
    }
    .finish()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::config::model::{self, Secret};

    const NOW: u64 = 1_700_000_000;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn request<'a>(headers: &'a HeaderMap, target: &'a str) -> Request<'a> {
        Request { headers, key: None, host: "a.test", target, client: "192.0.2.1".parse().unwrap() }
    }

    fn by(key: HashKey) -> Balance {
        Balance::ConsistentHash { key, bound: Some(125) }
    }

    fn hash(request: &Request<'_>, balance: &Balance) -> Option<u64> {
        ask_of(request, balance, None, NOW).hash
    }

    #[test]
    fn only_hashing_needs_a_hash() {
        let none = HeaderMap::new();
        let request = request(&none, "/a");
        for balance in [
            Balance::RoundRobin,
            Balance::Random,
            Balance::LeastRequests { choices: Some(2) },
            Balance::LeastLatency,
            Balance::Failover,
        ] {
            assert_eq!(ask_of(&request, &balance, None, NOW), Affinity::default());
        }
    }

    #[test]
    fn a_path_is_host_and_path_in_normal_form() {
        let none = HeaderMap::new();
        let path = |target| hash(&request(&none, target), &by(HashKey::Path)).unwrap();
        assert_eq!(path("/a/b?x=1"), path("/a/b"));
        assert_eq!(path("/a/%62"), path("/a/./b?"));
        assert_ne!(path("/a/b"), path("/a/c"));
        let other = Request { host: "b.test", ..request(&none, "/a/b") };
        assert_ne!(hash(&other, &by(HashKey::Path)), Some(path("/a/b")));
    }

    #[test]
    fn what_is_stored_alike_goes_alike() {
        let none = HeaderMap::new();
        let by_key = by(HashKey::CacheKey);
        let (one, other) = (Key { hash: [1; 16], has_more: false }, Key { hash: [2; 16], has_more: false });
        let with = |key, target| hash(&Request { key, ..request(&none, target) }, &by_key);
        assert_eq!(with(Some(&one), "/a?x=1"), with(Some(&one), "/a?x=2"));
        assert_ne!(with(Some(&one), "/a"), with(Some(&other), "/a"));
        assert_ne!(with(None, "/a?x=1"), with(None, "/a?x=2"), "without a key the whole target counts");
        assert_ne!(with(None, "/a?"), with(None, "/a"));
    }

    #[test]
    fn a_client_is_its_address() {
        let none = HeaderMap::new();
        let from = |client: &str| Request { client: client.parse().unwrap(), ..request(&none, "/a") };
        let of = |client| hash(&from(client), &Balance::IpHash).unwrap();
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_eq!(Some(of("2001:db8::1")), hash(&from("2001:db8::1"), &by(HashKey::ClientIp)));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn fields_and_cookies_count_where_they_are() {
        let user = |fields: &[(&'static str, &'static str)], key: HashKey| {
            let headers = headers(fields);
            hash(&request(&headers, "/a"), &by(key))
        };
        let header = || HashKey::Header("x-user".to_owned());
        assert_eq!(user(&[("x-other", "1")], header()), None);
        assert!(user(&[("x-user", "")], header()).is_some());
        assert_eq!(user(&[("x-user", "1")], header()), user(&[("a", "b"), ("x-user", "1")], header()));
        assert_ne!(user(&[("x-user", "1")], header()), user(&[("x-user", "2")], header()));
        assert_ne!(user(&[("x-user", "12")], header()), user(&[("x-user", "1"), ("x-user", "2")], header()));

        let cookie = || HashKey::Cookie("sid".to_owned());
        assert_eq!(user(&[("cookie", "side=1; a=sid=2")], cookie()), None);
        let one = user(&[("cookie", "sid=1")], cookie());
        assert!(one.is_some());
        assert_eq!(user(&[("cookie", "a=b; sid=1;c")], cookie()), one);
        assert_eq!(user(&[("cookie", "a=b"), ("cookie", "sid=1")], cookie()), one);
        assert_ne!(user(&[("cookie", "sid=2")], cookie()), one);
    }

    #[test]
    fn the_cookie_names_a_server_whatever_the_balance() {
        let secret = Secret(b"secret".to_vec(), "env:KEY".to_owned());
        let settings = model::Sticky { cookie: "stay".to_owned(), secret, ttl: None };
        let sticky = Sticky::new(&settings, "shop");
        let set = sticky.set_cookie(42, NOW, false).unwrap();
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        let mut headers = headers(&[("cookie", "a=b")]);
        headers.append(COOKIE, pair.parse().unwrap());
        let request = request(&headers, "/a");
        for balance in [Balance::RoundRobin, Balance::IpHash] {
            assert_eq!(ask_of(&request, &balance, Some(&sticky), NOW).stays_with, Some(42));
            assert_eq!(ask_of(&request, &balance, None, NOW).stays_with, None);
        }
    }
}
