//! From what is asked to be purged to selectors, which have all text as the keys of what is stored have it.
//!
//! Where it cannot be known which of several spellings a key has, each becomes a selector, or a wider one stands for all:
//! a purge may reach more than was asked for, but never less.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;

use http::HeaderMap;

use super::{Entry, Purge, Selector, WrongSelector};
use crate::config;
use crate::config::model::{ClientMatcher, Config, KeyPolicy, Site};
use crate::site::{
    Directory, Facts, Visitor, has_dot_segments, may_match, normalise_authority, normalise_path, normalise_query,
    query_in_key,
};

/// Mistakes that are told of at once.
const MOST_WRONG: usize = 100;

/// Bytes of a tag.
const LONGEST_TAG: usize = 1024;

/// The selectors of what is asked for: each once, at least one and at most [`Entry::MAX_SELECTORS`].
///
/// - A URL becomes a selector for each query that a route which may govern a GET of it leaves in the key. With the cache
///   off, or on no site, it keeps its whole query: it may have been stored under an earlier configuration.
/// - A host or a prefix without a port stands for every port; so does one with port 80 or 443 and without a scheme,
///   since keys leave these away where they are the scheme's own.
///
/// # Errors
/// Every selector that is wrong, in order, up to a hundred.
pub fn resolve(purge: &Purge, config: &Config, directory: &Directory) -> Result<Box<[Selector]>, Vec<WrongSelector>> {
    let mut all = Gathered::default();
    all.gather("urls", &purge.urls, |text, to| url(text, config, directory, to));
    all.gather("hosts", &purge.hosts, |text, to| host(text).map(|host| to.push(Selector::Host(host))));
    all.gather("prefixes", &purge.prefixes, |text, to| prefix(text, purge.raw).map(|prefix| to.push(prefix)));
    all.gather("tags", &purge.tags, |text, to| tag(text).map(|tag| to.push(Selector::Tag(tag))));
    let sites: HashSet<&str> = match purge.sites.is_empty() {
        true => HashSet::new(),
        false => config.sites.iter().map(|site| &*site.name).collect(),
    };
    all.gather("sites", &purge.sites, |text, to| site(text, &sites, config).map(|site| to.push(Selector::Site(site))));
    if purge.everything {
        all.add(Selector::Everything);
    }
    all.done()
}

/// Why a selector is wrong.
type Why = Cow<'static, str>;

#[derive(Default)]
struct Gathered {
    /// By their place in the result.
    selectors: HashMap<Selector, usize>,
    wrong: Vec<WrongSelector>,
    /// There are more than an entry holds, and that has been said.
    too_many: bool,
}

impl Gathered {
    fn gather(
        &mut self,
        list: &'static str,
        values: &[String],
        mut read: impl FnMut(&str, &mut Vec<Selector>) -> Result<(), Why>,
    ) {
        let mut found = Vec::new();
        for (index, value) in values.iter().enumerate() {
            if self.wrong.len() >= MOST_WRONG || self.too_many {
                return;
            }
            found.clear();
            let why = match read(value, &mut found) {
                Ok(()) => {
                    found.drain(..).for_each(|selector| self.add(selector));
                    self.too_many = self.selectors.len() > Entry::MAX_SELECTORS;
                    match self.too_many {
                        true => too_many(),
                        false => continue,
                    }
                }
                Err(why) => why.into_owned(),
            };
            self.wrong.push(WrongSelector { list, index, value: value.clone(), why });
        }
    }

    fn add(&mut self, selector: Selector) {
        let place = self.selectors.len();
        self.selectors.entry(selector).or_insert(place);
    }

    fn done(mut self) -> Result<Box<[Selector]>, Vec<WrongSelector>> {
        let whole = |value: bool, why| WrongSelector { list: "everything", index: 0, value: value.to_string(), why };
        if self.wrong.is_empty() && self.selectors.is_empty() {
            self.wrong.push(whole(false, "nothing is selected: at least one selector is needed".to_owned()));
        }
        if self.wrong.is_empty() && self.selectors.len() > Entry::MAX_SELECTORS {
            self.wrong.push(whole(true, too_many()));
        }
        if !self.wrong.is_empty() {
            return Err(self.wrong);
        }
        let mut selectors: Vec<_> = self.selectors.into_iter().collect();
        selectors.sort_unstable_by_key(|(_, place)| *place);
        Ok(selectors.into_iter().map(|(selector, _)| selector).collect())
    }
}

fn too_many() -> String {
    let most = Entry::MAX_SELECTORS;
    format!("with this, there are more than {most} selectors; a URL is one for each query that routes may leave of it")
}

fn url(text: &str, config: &Config, directory: &Directory, to: &mut Vec<Selector>) -> Result<(), Why> {
    let expected = "expected an absolute URL, such as http://www.example.com/a?b=c";
    let (default_port, rest) = scheme(text).ok_or(expected)?;
    let (authority, target) = split_target(rest);
    let (authority, host_length) = normalised(checked(authority, text)?, default_port)?;
    let target = ascii(target);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(normalise_query(query))),
        None => (&*target, None),
    };
    let path = normalise_path(path);
    let url = |query: Option<&str>| Selector::Url {
        host: (*authority).into(),
        path: (*path).into(),
        query: query.map(Into::into),
    };
    let site = directory.find(&authority[..host_length]).and_then(|index| config.sites.get(index));
    if let Some(site) = site {
        let facts = Facts {
            method: "GET",
            path: &path,
            query: query.as_deref(),
            headers: &HeaderMap::new(),
            withheld: &[],
            visitor: Visitor::nobody(),
        };
        for policy in key_policies(site, &facts) {
            to.push(url(query_in_key(query.as_deref(), policy).as_deref()));
        }
    }
    if to.is_empty() {
        to.push(url(query.as_deref()));
    }
    Ok(())
}

/// How the key of a GET may be made: by each route that may govern it and has a cache. Those that leave the same of a query
/// are told of once.
fn key_policies<'c>(site: &'c Site, facts: &Facts<'_>) -> Vec<&'c KeyPolicy> {
    let mut policies: Vec<&KeyPolicy> = Vec::new();
    let may_govern = site.routes.iter().filter(|route| may_match(&route.matcher, facts));
    let mut candidates = Vec::new();
    let mut certain = false;
    for route in may_govern {
        candidates.push(&route.policy);
        if route.matcher.headers.is_empty() && route.matcher.client == ClientMatcher::default() {
            certain = true;
            break;
        }
    }
    if !certain {
        candidates.push(&site.policy);
    }
    for policy in candidates.into_iter().filter(|policy| policy.cache.is_some()) {
        let key = &policy.key;
        // Without a query, nothing can be left of it.
        let same = |other: &&KeyPolicy| facts.query.is_none() || (other.sort, &other.query) == (key.sort, &key.query);
        if !policies.iter().any(same) {
            policies.push(key);
        }
    }
    policies
}

fn host(text: &str) -> Result<Box<str>, Why> {
    if text.contains("://") {
        return Err("a host is named without a scheme, such as www.example.com or www.example.com:8080".into());
    }
    if text.contains(['/', '?', '#']) {
        return Err("a host is named without a path; what is below a path is a prefix".into());
    }
    on_any_port(checked(text, text)?)
}

fn prefix(text: &str, raw: bool) -> Result<Selector, Why> {
    let expected = "expected a host and a path, such as www.example.com/news/";
    let (default_port, rest) = match scheme(text) {
        Some((default_port, rest)) => (Some(default_port), rest),
        None if text.contains("://") => return Err(expected.into()),
        None => (None, text),
    };
    let (authority, path) = split_target(rest);
    // A mere word is more likely a tag or a part of a path than a host of which all is to go.
    if authority.is_empty() || path.is_empty() && default_port.is_none() {
        return Err(expected.into());
    }
    if path.contains('?') {
        return Err("a prefix has no query: it selects paths, with whatever query".into());
    }
    let authority = checked(authority, text)?;
    let host = match default_port {
        Some(default_port) => normalised(authority, default_port)?.0.into(),
        None => on_any_port(authority)?,
    };
    let path = ascii(path);
    if path.ends_with('*') {
        return Err("a prefix is written without a `*` at its end; with `raw`, it may end within a segment".into());
    }
    if raw {
        let last = path.rsplit('/').next().unwrap_or_default();
        if has_dot_segments(last) {
            return Err("with `raw`, the last segment cannot be `.` or `..`: what is meant is not clear".into());
        }
        if ends_within_encoding(&path) {
            return Err("it ends within a percent-encoding".into());
        }
    }
    Ok(Selector::Prefix { host, path: normalise_path(&path).into(), raw })
}

fn tag(text: &str) -> Result<Box<str>, Why> {
    if text.is_empty() {
        return Err("a tag is not empty".into());
    }
    if text.len() > LONGEST_TAG {
        return Err(format!("a tag is at most {LONGEST_TAG} bytes long").into());
    }
    if text.chars().any(|c| c == ' ' || c == ',' || c.is_control()) {
        return Err("a tag has no spaces, commas and control characters; name each tag by itself".into());
    }
    Ok(text.into())
}

fn site(text: &str, names: &HashSet<&str>, config: &Config) -> Result<Box<str>, Why> {
    if names.contains(text) {
        return Ok(text.into());
    }
    let names: Vec<&str> = config.sites.iter().map(|site| &*site.name).collect();
    Err(format!("there is no site of this name{}", config::suggest(text, &names)).into())
}

/// The port that an `http://` or `https://` URL has by default, and what follows.
fn scheme(text: &str) -> Option<(u16, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Some((80, rest)),
        _ if scheme.eq_ignore_ascii_case("https") => Some((443, rest)),
        _ => None,
    }
}

/// Host and port, and what is asked of them.
fn split_target(text: &str) -> (&str, &str) {
    text.split_at(text.find(['/', '?', '#']).unwrap_or(text.len()))
}

/// The authority, if nothing stands in it or in `whole` that is in no key.
fn checked<'a>(authority: &'a str, whole: &str) -> Result<&'a str, Why> {
    if whole.chars().any(|c| c == ' ' || c.is_control()) {
        return Err("it holds a space or a control character".into());
    }
    if whole.contains('#') {
        return Err("it holds a fragment, which is never sent".into());
    }
    if authority.contains('@') {
        return Err("it holds user information, which is never sent".into());
    }
    if authority.contains('*') {
        return Err("a host is no pattern: name each host, or purge a site".into());
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("an IPv6 address is written in brackets: [{authority}]").into());
    }
    Ok(authority)
}

fn normalised(authority: &str, default_port: u16) -> Result<(Cow<'_, str>, usize), Why> {
    normalise_authority(authority, default_port).map_err(|bad| bad.as_str().into())
}

/// Without a scheme, a port that is some scheme's own may be in the keys or not: then every port is meant.
fn on_any_port(authority: &str) -> Result<Box<str>, Why> {
    let (authority, host_length) = normalised(authority, 80)?;
    Ok(match authority.split_at(host_length) {
        (host, ":443") => host.into(),
        _ => authority.into(),
    })
}

/// Characters that are not ASCII mean the percent-encoding of their bytes (RFC 3986 §2.5), as they do in requests.
fn ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte.is_ascii() {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    Cow::Owned(encoded)
}

/// Whether what follows could complete a percent-encoding, so that the path would go on with another character.
fn ends_within_encoding(path: &str) -> bool {
    match path.as_bytes() {
        [.., b'%'] => true,
        [.., b'%', digit] => digit.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
