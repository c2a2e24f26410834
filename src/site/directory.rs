//! From a host to its site.

use std::collections::HashMap;

use crate::config::model::{HostPattern, Site};

/// Finds the site of a host: an exact name wins over the longest wildcard, and that over a site for any host.
#[derive(Debug, Default)]
pub struct Directory {
    exact: HashMap<Box<str>, usize>,
    /// By suffix, the leading dot included.
    wildcard: HashMap<Box<str>, usize>,
    any: Option<usize>,
}

impl Directory {
    /// Indexes the hosts of all sites. Where two sites name the same host, the first has it.
    pub fn new(sites: &[Site]) -> Directory {
        let mut directory = Directory::default();
        for (index, site) in sites.iter().enumerate() {
            for host in &site.hosts {
                match host {
                    HostPattern::Exact(name) => {
                        directory.exact.entry(name.as_str().into()).or_insert(index);
                    }
                    HostPattern::Wildcard(suffix) => {
                        directory.wildcard.entry(suffix.as_str().into()).or_insert(index);
                    }
                    HostPattern::Any => {
                        directory.any.get_or_insert(index);
                    }
                }
            }
        }
        directory
    }

    /// The index of the site that serves `host`, which is in normal form ([`super::normalise_host`]).
    pub fn find(&self, host: &str) -> Option<usize> {
        self.exact.get(host).copied().or_else(|| self.below(host)).or(self.any)
    }

    /// The longest suffix is the one whose dot comes first.
    fn below(&self, host: &str) -> Option<usize> {
        if self.wildcard.is_empty() {
            return None;
        }
        host.match_indices('.').find_map(|(dot, _)| self.wildcard.get(&host[dot..])).copied()
    }
}

/// The index of the pattern by which a site has a host.
pub fn pattern_of(site: &Site, host: &str) -> Option<usize> {
    let rank = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(name) => (name == host).then_some(usize::MAX),
        HostPattern::Wildcard(suffix) => host.ends_with(suffix.as_str()).then_some(suffix.len()),
        HostPattern::Any => Some(0),
    };
    let ranked = site.hosts.iter().enumerate().filter_map(|(index, pattern)| Some((rank(pattern)?, index)));
    ranked.max_by_key(|(rank, index)| (*rank, std::cmp::Reverse(*index))).map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::model::{KeyPolicy, RequestPolicy};

    fn site(hosts: &[&str]) -> Site {
        let hosts = hosts.iter().map(|host| match host.strip_prefix('*') {
            Some("") => HostPattern::Any,
            Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
            None => HostPattern::Exact((*host).to_owned()),
        });
        Site {
            name: "site".into(),
            hosts: hosts.collect(),
            policy: Arc::new(RequestPolicy {
                origin: 0,
                cache: None,
                key: KeyPolicy::default(),
                guard: Default::default(),
            }),
            purge: None,
            routes: Vec::new(),
        }
    }

    #[test]
    fn exact_beats_the_longest_wildcard_beats_any() {
        let directory = Directory::new(&[
            site(&["*"]),
            site(&["*.example.com"]),
            site(&["*.cdn.example.com"]),
            site(&["img.cdn.example.com", "example.com"]),
        ]);
        assert_eq!(directory.find("img.cdn.example.com"), Some(3));
        assert_eq!(directory.find("x.cdn.example.com"), Some(2));
        assert_eq!(directory.find("a.b.cdn.example.com"), Some(2));
        assert_eq!(directory.find("cdn.example.com"), Some(1));
        assert_eq!(directory.find("www.example.com"), Some(1));
        assert_eq!(directory.find("example.com"), Some(3));
        assert_eq!(directory.find("badexample.com"), Some(0));
        assert_eq!(directory.find("[::1]"), Some(0));
    }

    #[test]
    fn the_pattern_is_the_one_that_the_directory_goes_by() {
        let site = site(&["*", "*.test", "*.a.test", "x.a.test", "a.test"]);
        for (host, pattern) in [("x.a.test", 3), ("y.a.test", 2), ("a.test", 4), ("b.test", 1), ("b.example", 0)] {
            assert_eq!(pattern_of(&site, host), Some(pattern), "{host}");
        }
        assert_eq!(pattern_of(&self::site(&["a.test"]), "b.test"), None);
    }

    #[test]
    fn a_wildcard_is_for_names_below_it_only() {
        let directory = Directory::new(&[site(&["*.example.com"])]);
        assert_eq!(directory.find("example.com"), None);
        assert_eq!(directory.find("www.example.com"), Some(0));
        assert_eq!(directory.find("example.com.evil.test"), None);
    }

    #[test]
    fn the_first_site_has_a_host_that_two_name() {
        let directory = Directory::new(&[site(&["a.test", "*"]), site(&["a.test", "*"])]);
        assert_eq!(directory.find("a.test"), Some(0));
        assert_eq!(directory.find("b.test"), Some(0));
        assert_eq!(Directory::new(&[]).find("a.test"), None);
    }
}
