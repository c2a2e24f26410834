//! Guards: who may ask, and how much. Each key of a route replaces its site's.

mod access;
mod facts;
mod geo;
mod keys;
mod limits;
mod public_key;

use std::path::Path;
use std::sync::Arc;

pub(super) use access::country_text;
pub(super) use facts::facts;
pub(super) use geo::geo;
pub(super) use keys::keys;

use crate::config::decode::Placed;
use crate::config::model::{Bandwidth, Guard, Hsts, Https, KeyPart};
use crate::config::raw;
use crate::config::report::{Place, Report, suggest};
use crate::config::words::{Choice, KeyName, OffOr, OffOrMany, SizeOrUnlimited};

/// What a site or a route says of its guards.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub https: Option<&'a Placed<Https>>,
    pub hsts: Option<&'a Placed<Choice<raw::Hsts>>>,
    pub access: Option<&'a Placed<OffOr<raw::Access>>>,
    pub signed_url: Option<&'a Placed<OffOrMany<KeyName>>>,
    pub rate_limit: Option<&'a Placed<OffOrMany<raw::RateLimit>>>,
    pub concurrency_limit: Option<&'a Placed<OffOrMany<raw::ConcurrencyLimit>>>,
    bandwidth: Option<&'a Placed<OffOr<raw::Bandwidth>>>,
    body_size: Option<&'a Placed<SizeOrUnlimited>>,
    pub place: &'a Place,
    of_route: bool,
    /// The scheme that requests have come by, where a route asks for one: whether it is https.
    secure: Option<bool>,
}

macro_rules! layer {
    ($from:ident, $of_route:expr, $secure:expr) => {
        Layer {
            https: $from.https.as_ref(),
            hsts: $from.hsts.as_ref(),
            access: $from.access.as_ref(),
            signed_url: $from.signed_url.as_ref(),
            rate_limit: $from.rate_limit.as_ref(),
            concurrency_limit: $from.concurrency_limit.as_ref(),
            bandwidth: $from.bandwidth.as_ref(),
            body_size: $from.body_size.as_ref(),
            place: &$from.place,
            of_route: $of_route,
            secure: $secure,
        }
    };
}

impl<'a> From<&'a Placed<raw::Site>> for Layer<'a> {
    fn from(site: &'a Placed<raw::Site>) -> Self {
        layer!(site, false, None)
    }
}

impl<'a> From<&'a Placed<raw::Route>> for Layer<'a> {
    fn from(route: &'a Placed<raw::Route>) -> Self {
        layer!(route, true, route.r#match.as_ref().and_then(|m| m.scheme.as_ref()).map(|scheme| scheme.secure))
    }
}

/// The keys of a layer.
const KEYS: [&str; 8] =
    ["https", "hsts", "access", "signed_url", "rate_limit", "concurrency_limit", "bandwidth", "body_size"];

/// Checks the guards of all sites and routes, in the order of the file, a site before its routes.
pub(super) struct Guards<'a> {
    keys: KeyIndex<'a>,
    geo: geo::Known,
    rates: limits::Names,
    concurrencies: limits::Names,
    base: &'a Path,
    /// How many guards there are.
    made: usize,
}

impl<'a> Guards<'a> {
    pub fn new(root: &'a raw::Root, base: &'a Path) -> Self {
        Guards {
            keys: KeyIndex::new(root),
            geo: geo::Known::of(root),
            rates: limits::Names::default(),
            concurrencies: limits::Names::default(),
            base,
            made: 0,
        }
    }

    /// What guards the site or route that is called `name`. `site` is the site's own guard, for a route.
    pub fn guard(&mut self, layer: &Layer<'_>, site: Option<&Guard>, name: &str, report: &mut Report) -> Option<Guard> {
        let mut guard = match site {
            Some(site) => copy(site),
            None => Guard::default(),
        };
        guard.id = self.made;
        self.made += 1;
        self.transport(&mut guard, layer, report);
        if let Some(raw) = layer.access {
            guard.access = match &raw.value {
                OffOr::Off => None,
                OffOr::Keys(keys) => access::access(keys, &raw.place, &self.geo, self.base, report).map(Arc::new),
            };
        }
        if let Some(raw) = layer.signed_url {
            guard.signed_url = match &raw.value {
                OffOrMany::Off => Vec::new(),
                OffOrMany::Many(names) => self.signers(&names.0, report),
            };
        }
        if let Some(raw) = layer.rate_limit {
            guard.rate_limits = match &raw.value {
                OffOrMany::Off => Vec::new(),
                OffOrMany::Many(list) => limits::rates(&list.0, name, &mut self.rates, &self.geo, report),
            };
        }
        if let Some(raw) = layer.concurrency_limit {
            guard.concurrency_limits = match &raw.value {
                OffOrMany::Off => Vec::new(),
                OffOrMany::Many(list) => {
                    limits::concurrencies(&list.0, name, &mut self.concurrencies, &self.geo, report)
                }
            };
        }
        if let Some(raw) = layer.bandwidth {
            guard.bandwidth = match &raw.value {
                OffOr::Off => None,
                OffOr::Keys(keys) => bandwidth(keys),
            };
        }
        if let Some(raw) = layer.body_size {
            guard.body_size = Some(raw.value.0);
        }
        // What is given and wrong has been reported, and would be missed here.
        let path = &layer.place.path;
        if layer.of_route && site.is_none() || KEYS.iter().any(|key| report.is_wrong(&format!("{path}.{key}"))) {
            return None;
        }
        token_ids(&guard, layer, report);
        Some(guard)
    }

    /// What of an address is known.
    pub fn geo(&self) -> &geo::Known {
        &self.geo
    }

    pub fn warn_of_unused(&self, report: &mut Report) {
        self.keys.warn_of_unused(report);
    }

    /// TLS, and what clients are told of it.
    fn transport(&self, guard: &mut Guard, layer: &Layer<'_>, report: &mut Report) {
        if let Some(raw) = layer.https {
            guard.https = raw.value;
            if layer.secure == Some(true) && raw.value != Https::Optional {
                report.error(&raw.place, "`https` has no effect: the route takes requests by https alone");
            }
        }
        let Some(raw) = layer.hsts else { return };
        guard.hsts = match &raw.value {
            Choice::Off => None,
            Choice::On => Some(Hsts { max_age: YEAR, include_subdomains: false, preload: false }),
            Choice::Keys(keys) => hsts(keys, report),
        };
        if layer.secure == Some(false) && !matches!(raw.value, Choice::Off) {
            report.error(
                &raw.place,
                "`hsts` has no effect: the route takes requests by http alone, and it is sent over TLS",
            );
        }
    }

    /// The indexes of keys by their names.
    fn signers(&mut self, names: &[Placed<KeyName>], report: &mut Report) -> Vec<usize> {
        distinct(names, |name| name.0.clone(), report);
        names.iter().filter_map(|name| self.keys.find(name, report)).collect()
    }
}

const YEAR: std::time::Duration = std::time::Duration::from_secs(365 * 86_400);

fn hsts(raw: &raw::Hsts, report: &mut Report) -> Option<Hsts> {
    let hsts = Hsts {
        max_age: raw.max_age.as_ref()?.0,
        include_subdomains: raw.include_subdomains.as_ref()?.value,
        preload: raw.preload.as_ref()?.value,
    };
    // What the lists of browsers ask for (hstspreload.org).
    if let Some(preload) =
        raw.preload.as_ref().filter(|_| hsts.preload && (!hsts.include_subdomains || hsts.max_age < YEAR))
    {
        report.error(
            &preload.place,
            "`preload: true` has no effect without `include_subdomains: true` and a `max_age` of at least 365d",
        );
    }
    Some(hsts)
}

fn bandwidth(raw: &raw::Bandwidth) -> Option<Bandwidth> {
    Some(Bandwidth { rate: raw.rate.as_ref()?.0, after: raw.after.as_ref()?.0 })
}

/// A site's guard as its route has it until the route says something else.
fn copy(site: &Guard) -> Guard {
    Guard {
        id: site.id,
        https: site.https,
        hsts: site.hsts,
        access: site.access.clone(),
        rate_limits: site.rate_limits.clone(),
        concurrency_limits: site.concurrency_limits.clone(),
        bandwidth: site.bandwidth,
        signed_url: site.signed_url.clone(),
        body_size: site.body_size,
    }
}

/// Who has no token cannot be told from others by it.
fn token_ids(guard: &Guard, layer: &Layer<'_>, report: &mut Report) {
    if !guard.signed_url.is_empty() {
        return;
    }
    let rates = guard.rate_limits.iter().any(|limit| limit.key.contains(&KeyPart::TokenId));
    let concurrencies = guard.concurrency_limits.iter().any(|limit| limit.key.contains(&KeyPart::TokenId));
    let mut complain = |counted: bool, place: Option<&Place>, key: &str| {
        // Where the limit is the site's, the mistake is that the route asks for no signature.
        if let Some(place) = place.or(layer.signed_url.map(|raw| &raw.place)).filter(|_| counted) {
            report.error(place, format!("`{key}` counts by `token-id`, for which `signed_url` is needed"));
        }
    };
    complain(rates, layer.rate_limit.map(|raw| &raw.place), "rate_limit");
    complain(concurrencies, layer.concurrency_limit.map(|raw| &raw.place), "concurrency_limit");
}

/// The members of a list; one that stands twice is a mistake.
pub(super) fn distinct<T, U: PartialEq + ToString>(
    list: &[Placed<T>],
    value: impl Fn(&T) -> U,
    report: &mut Report,
) -> Vec<U> {
    let mut values: Vec<U> = Vec::new();
    for item in list {
        let value = value(&item.value);
        if values.contains(&value) {
            report.error(&item.place, format!("`{}` is already in the list", value.to_string()));
        } else {
            values.push(value);
        }
    }
    values
}

/// Keys by name, and which of them anything refers to.
struct KeyIndex<'a> {
    names: Vec<&'a Placed<KeyName>>,
    used: Vec<bool>,
}

impl<'a> KeyIndex<'a> {
    fn new(root: &'a raw::Root) -> Self {
        let names: Vec<_> = root.keys.iter().flat_map(|map| map.0.iter().map(|(name, _)| name)).collect();
        let used = vec![false; names.len()];
        KeyIndex { names, used }
    }

    /// The index of the key with this name.
    fn find(&mut self, name: &Placed<KeyName>, report: &mut Report) -> Option<usize> {
        if let Some(i) = self.names.iter().position(|n| n.0 == name.0) {
            if let Some(used) = self.used.get_mut(i) {
                *used = true;
            }
            return Some(i);
        }
        // Without keys that could be read, every reference would look wrong; and one that is there and wrong has been
        // reported as such.
        if !report.is_wrong("keys") {
            let names: Vec<&str> = self.names.iter().map(|n| n.0.as_str()).collect();
            report.error(&name.place, format!("there is no key `{}`{}", name.0, suggest(&name.0, &names)));
        }
        None
    }

    fn warn_of_unused(&self, report: &mut Report) {
        for (name, _) in self.names.iter().zip(&self.used).filter(|(_, used)| !**used) {
            report.warn(&name.place, format!("the key `{}` is not used by any site", name.0));
        }
    }
}
