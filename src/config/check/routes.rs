//! Routes: their conditions, and whether a request can reach them.

use std::collections::HashMap;
use std::hash::Hash;

use super::cache::{self, Settings};
use super::sites::{OriginIndex, policy};
use crate::config::decode::{Map, OneOrMany, Placed};
use crate::config::model::{ClientMatcher, Matcher, Route, ValueMatch};
use crate::config::pattern::PathPattern;
use crate::config::raw;
use crate::config::report::{Place, Report};
use crate::config::words::Expectation;
use crate::http_cache::Tiers;

/// Checks the routes of one site. `origin` and `settings` are the site's; `there` are the tiers that the store has.
pub(super) fn routes(
    list: &[Placed<raw::Route>],
    origin: Option<usize>,
    settings: &Settings,
    there: Tiers,
    origins: &mut OriginIndex<'_>,
    report: &mut Report,
) -> Option<Vec<Route>> {
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut earlier: Vec<(Matcher, &Place)> = Vec::new();
    let mut checked = Vec::new();
    for (i, raw) in list.iter().enumerate() {
        let origin = match &raw.origin {
            Some(name) => origins.find(name, report),
            None => origin,
        };
        let settings = cache::refine(settings, raw.cache.as_ref(), there, report);
        let matcher = raw.r#match.as_ref().and_then(|raw| matcher(raw, report));
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
        checked.push(match (matcher, origin) {
            (Some(matcher), Some(origin)) => {
                Some(Route { name: name.into(), matcher, policy: policy(origin, settings) })
            }
            _ => None,
        });
    }
    checked.into_iter().collect()
}

fn matcher(raw: &Placed<raw::Match>, report: &mut Report) -> Option<Matcher> {
    let matcher = Matcher {
        path: distinct(&raw.path, |p| p.clone(), report),
        extensions: distinct(&raw.extensions, |e| e.0.clone(), report),
        methods: distinct(&raw.methods, |m| m.0.clone(), report),
        headers: expectations(&raw.headers, |name| name.0.clone(), report),
        query: expectations(&raw.query, |name| name.0.clone(), report),
        client: ClientMatcher::default(),
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
