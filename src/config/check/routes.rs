//! Routes: their conditions, and whether a request can reach them.

use std::collections::HashMap;
use std::hash::Hash;

use super::cache::{self, Settings};
use super::guard::{self, Guards, Layer};
use super::sites::{OriginIndex, policy};
use crate::config::decode::{Map, OneOrMany, Placed};
use crate::config::model::{ClientMatcher, Guard, Matcher, Route, ValueMatch};
use crate::config::pattern::PathPattern;
use crate::config::raw;
use crate::config::report::{Place, Report};
use crate::config::words::Expectation;
use crate::http_cache::Tiers;

/// The site that routes belong to, as far as it is right.
pub(super) struct Site<'a> {
    pub name: &'a str,
    pub origin: Option<usize>,
    pub settings: &'a Settings,
    pub guard: Option<&'a Guard>,
}

/// Checks the routes of one site. `there` are the tiers that the store has.
pub(super) fn routes(
    list: &[Placed<raw::Route>],
    site: &Site<'_>,
    there: Tiers,
    origins: &mut OriginIndex<'_>,
    guards: &mut Guards<'_>,
    report: &mut Report,
) -> Option<Vec<Route>> {
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut earlier: Vec<(Matcher, &Place)> = Vec::new();
    let mut checked = Vec::new();
    for (i, raw) in list.iter().enumerate() {
        let origin = match &raw.origin {
            Some(name) => origins.find(name, report),
            None => site.origin,
        };
        let settings = cache::refine(site.settings, raw.cache.as_ref(), there, report);
        let matcher = raw.r#match.as_ref().and_then(|raw| matcher(raw, guards, report));
        if let (Some(matcher), Some(raw)) = (&matcher, &raw.r#match) {
            if let Some((_, place)) = earlier.iter().find(|(wide, _)| covers(wide, matcher)) {
                report.error(
                    &raw.place,
                    format!(
                        "this route is never reached: {} on line {} takes all its requests",
                        place.path, place.mark.line
                    ),
                );
            }
            earlier.push((matcher.clone(), &raw.place));
        }
        let name = raw.name.as_ref().map_or_else(|| format!("routes[{i}]"), |name| name.0.clone());
        let place = raw.name.as_ref().map_or(&raw.place, |name| &name.place);
        if let Some(line) = names.insert(name.clone(), place.mark.line) {
            report.error(place, format!("the name `{name}` is already that of the route on line {line}"));
        }
        let guard = guards.guard(&Layer::from(raw), site.guard, &format!("{}/{name}", site.name), report);
        warn_of_no_effect(raw, guard.as_ref(), site.guard, report);
        checked.push(match (matcher, origin, guard) {
            (Some(matcher), Some(origin), Some(guard)) => {
                Some(Route { name: name.into(), matcher, policy: policy(origin, settings, guard) })
            }
            _ => None,
        });
    }
    checked.into_iter().collect()
}

/// A route that asks for the signature that its site asks for, and says nothing else, says nothing.
fn warn_of_no_effect(raw: &raw::Route, guard: Option<&Guard>, site: Option<&Guard>, report: &mut Report) {
    let (Some(signed), Some(guard), Some(site)) = (&raw.signed_url, guard, site) else { return };
    let others = raw.origin.is_some()
        || raw.cache.is_some()
        || raw.https.is_some()
        || raw.hsts.is_some()
        || raw.access.is_some()
        || raw.rate_limit.is_some()
        || raw.concurrency_limit.is_some()
        || raw.bandwidth.is_some()
        || raw.body_size.is_some();
    if !others && guard.signed_url == site.signed_url {
        report.warn(&signed.place, "the route changes nothing: this is what the site itself says");
    }
}

fn matcher(raw: &Placed<raw::Match>, guards: &Guards<'_>, report: &mut Report) -> Option<Matcher> {
    let matcher = Matcher {
        path: distinct(&raw.path, |p| p.clone(), report),
        extensions: distinct(&raw.extensions, |e| e.0.clone(), report),
        methods: distinct(&raw.methods, |m| m.0.clone(), report),
        headers: expectations(&raw.headers, |name| name.0.clone(), report),
        query: expectations(&raw.query, |name| name.0.clone(), report),
        client: client(raw, guards, report),
    };
    // A condition that is given and wrong has been reported. What is left matches more than what was meant.
    if report.errors.iter().any(|e| e.place.path.starts_with(&raw.place.path)) {
        return None;
    }
    if matcher == Matcher::default() {
        let message = "at least one condition is needed; what holds for every request is the site's own settings";
        report.error(&raw.place, message);
        return None;
    }
    Some(matcher)
}

/// Conditions on who asks.
fn client(raw: &raw::Match, guards: &Guards<'_>, report: &mut Report) -> ClientMatcher {
    fn members<T>(list: &Option<Placed<OneOrMany<T>>>) -> &[Placed<T>] {
        list.as_ref().map_or(&[], |list| &list.0)
    }
    if let Some(list) = &raw.countries {
        guards.geo().need_country("countries", &list.place, report);
    }
    if let Some(list) = &raw.asns {
        guards.geo().need_asn("asns", &list.place, report);
    }
    guard::distinct(members(&raw.countries), |country| guard::country_text(country.0), report);
    ClientMatcher {
        networks: guard::distinct(members(&raw.clients), |network| network.0, report),
        countries: members(&raw.countries).iter().map(|country| country.0).collect(),
        asns: guard::distinct(members(&raw.asns), |number| number.0, report),
        identities: guard::distinct(members(&raw.identities), |name| name.0.clone(), report),
        secure: raw.scheme.as_ref().map(|scheme| scheme.secure),
    }
}

/// The members of a list; one that stands twice is a mistake.
fn distinct<T, U: PartialEq + Printable>(
    list: &Option<Placed<OneOrMany<T>>>,
    value: impl Fn(&T) -> U,
    report: &mut Report,
) -> Vec<U> {
    let mut values: Vec<U> = Vec::new();
    for item in list.iter().flat_map(|list| &list.0) {
        let value = value(&item.value);
        if values.contains(&value) {
            report.error(&item.place, format!("`{}` is already in the list", value.print()));
        } else {
            values.push(value);
        }
    }
    values
}

trait Printable {
    fn print(&self) -> &str;
}

impl Printable for String {
    fn print(&self) -> &str {
        self
    }
}

impl Printable for PathPattern {
    fn print(&self) -> &str {
        self.as_str()
    }
}

fn expectations<K>(
    map: &Option<Placed<Map<K, Expectation>>>,
    name: impl Fn(&K) -> String,
    report: &mut Report,
) -> Vec<(String, ValueMatch)> {
    let mut pairs: Vec<(String, ValueMatch)> = Vec::new();
    for (key, value) in map.iter().flat_map(|map| &map.0) {
        let name = name(&key.value);
        if pairs.iter().any(|(other, _)| *other == name) {
            // Equal as written has been reported as a duplicate key; this is about case.
            report.error(&key.place, format!("`{name}` is already given in another spelling"));
        } else {
            pairs.push((name, value.value.0.clone()));
        }
    }
    pairs
}

/// Whether every request that `narrow` matches is matched by `wide`. Never true wrongly, `OPTIONS *` aside: it has no
/// path, and no route with a path governs it.
fn covers(wide: &Matcher, narrow: &Matcher) -> bool {
    let covered = |p: &PathPattern| wide.path.iter().any(|w| w.covers(p));
    let paths = wide.path.is_empty()
        || wide.path.iter().any(|w| w.as_str() == "/**")
        || !narrow.path.is_empty() && narrow.path.iter().all(covered);
    paths
        && members(&wide.extensions, &narrow.extensions)
        && members(&wide.methods, &narrow.methods)
        && implied(&wide.headers, &narrow.headers)
        && implied(&wide.query, &narrow.query)
        && covers_clients(&wide.client, &narrow.client)
}

/// The same of the conditions on who asks.
fn covers_clients(wide: &ClientMatcher, narrow: &ClientMatcher) -> bool {
    let within = |net| wide.networks.iter().any(|w| w.contains(net));
    let networks = wide.networks.is_empty() || !narrow.networks.is_empty() && narrow.networks.iter().all(within);
    let named = |name: &String| wide.identities.iter().any(|w| covers_name(w, name));
    let identities = wide.identities.is_empty() || !narrow.identities.is_empty() && narrow.identities.iter().all(named);
    networks
        && identities
        && members(&wide.countries, &narrow.countries)
        && members(&wide.asns, &narrow.asns)
        && (wide.secure.is_none() || wide.secure == narrow.secure)
}

/// `*` at the begin of either stands for any run of characters.
fn covers_name(wide: &str, narrow: &str) -> bool {
    wide == narrow || wide.strip_prefix('*').is_some_and(|end| narrow.len() > end.len() && narrow.ends_with(end))
}

/// An empty list is no condition; else what is wanted must be among what is let through.
fn members<T: Eq + Hash>(wide: &[T], narrow: &[T]) -> bool {
    wide.is_empty() || !narrow.is_empty() && narrow.iter().all(|n| wide.contains(n))
}

fn implied(wide: &[(String, ValueMatch)], narrow: &[(String, ValueMatch)]) -> bool {
    wide.iter().all(|(name, wanted)| {
        narrow.iter().any(|(other, value)| {
            name == other
                && (value == wanted || matches!((wanted, value), (ValueMatch::Present, ValueMatch::Equals(_))))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(networks: &[&str], identities: &[&str], secure: Option<bool>) -> ClientMatcher {
        ClientMatcher {
            networks: networks.iter().map(|net| net.parse().unwrap()).collect(),
            identities: identities.iter().map(ToString::to_string).collect(),
            secure,
            ..ClientMatcher::default()
        }
    }

    #[test]
    fn conditions_on_clients_are_covered_by_wider_ones() {
        let any = ClientMatcher::default();
        let countries = |countries: &[[u8; 2]]| ClientMatcher { countries: countries.to_vec(), ..any.clone() };
        let asns = |asns: &[u32]| ClientMatcher { asns: asns.to_vec(), ..any.clone() };
        for (wide, narrow) in [
            (any.clone(), client(&["10.0.0.0/8"], &["a"], Some(true))),
            (client(&["10.0.0.0/8", "::/0"], &[], None), client(&["10.1.0.0/16", "2001:db8::/32"], &[], None)),
            (client(&[], &["*.a", "b"], None), client(&[], &["x.a", "*.y.a", "b"], None)),
            (client(&[], &["*.a"], None), client(&[], &["*.a"], None)),
            (client(&[], &[], Some(true)), client(&["::1/128"], &[], Some(true))),
            (countries(&[*b"DE", *b"FR"]), countries(&[*b"FR"])),
            (asns(&[1, 2]), asns(&[2])),
        ] {
            assert!(covers_clients(&wide, &narrow), "{wide:?} covers {narrow:?}");
        }
        for (wide, narrow) in [
            (client(&["10.0.0.0/8"], &[], None), any.clone()),
            (client(&["10.0.0.0/8"], &[], None), client(&["10.0.0.0/7"], &[], None)),
            (client(&["10.0.0.0/8"], &[], None), client(&["10.1.0.0/16", "::1/128"], &[], None)),
            (client(&["0.0.0.0/0"], &[], None), client(&["::/0"], &[], None)),
            (client(&[], &["a"], None), any.clone()),
            (client(&[], &["x.a"], None), client(&[], &["*.a"], None)),
            (client(&[], &["*.a"], None), client(&[], &[".a", "b"], None)),
            (client(&[], &[], Some(true)), any.clone()),
            (client(&[], &[], Some(true)), client(&[], &[], Some(false))),
            (countries(&[*b"DE"]), countries(&[*b"DE", *b"FR"])),
            (countries(&[*b"DE"]), any.clone()),
            (asns(&[1]), any),
        ] {
            assert!(!covers_clients(&wide, &narrow), "{wide:?} does not cover {narrow:?}");
        }
    }
}
