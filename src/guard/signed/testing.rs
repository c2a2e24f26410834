//! Requests for the tests of the formats.

use std::net::IpAddr;

use http::{HeaderMap, Method};

use super::{Presented, take};

/// A request that owns what it is made of. By default a GET over https for `cdn.example` from 192.0.2.7.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub secure: bool,
    pub authority: String,
    pub path: String,
    pub query: Option<String>,
    pub in_path: Option<String>,
    pub headers: HeaderMap,
    pub client: IpAddr,
}

impl Request {
    pub fn get(path: &str) -> Request {
        Request {
            method: Method::GET,
            secure: true,
            authority: "cdn.example".to_owned(),
            path: path.to_owned(),
            query: None,
            in_path: None,
            headers: HeaderMap::new(),
            client: IpAddr::from([192, 0, 2, 7]),
        }
    }

    /// For a target, whose path may begin with a token.
    pub fn target(target: &str, prefix: Option<&str>) -> Request {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let (token, path) = match prefix.and_then(|prefix| take::from_path(path, prefix)) {
            Some((token, path)) => (Some(token.to_owned()), path),
            None => (None, path),
        };
        Request { query: query.map(str::to_owned), in_path: token, ..Request::get(path) }
    }

    pub fn query(self, query: &str) -> Request {
        Request { query: Some(query.to_owned()), ..self }
    }

    pub fn client(self, client: &str) -> Request {
        Request { client: client.parse().expect("an address"), ..self }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Request {
        self.headers.append(name, value.parse().expect("a value"));
        self
    }

    pub fn presented(&self) -> Presented<'_> {
        Presented {
            method: &self.method,
            secure: self.secure,
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
            in_path: self.in_path.as_deref(),
            headers: &self.headers,
            client: self.client,
        }
    }
}

/// How many cases a property that stands for fuzzing is tried with: `FORELAND_FUZZ_CASES`, else 20,000.
pub fn fuzz_cases() -> proptest::test_runner::Config {
    let cases = std::env::var("FORELAND_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(20_000);
    proptest::test_runner::Config { cases, max_global_rejects: u32::MAX, ..Default::default() }
}
