//! Where in the file a setting stands: for whoever asks why it is as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decode::{Decode, Placed};
use super::raw;
use super::report::Place;
use super::words::CacheChoice;

/// Places by the indexes of the model: those of [`super::model::Config::origins`], of its sites and of their routes.
#[derive(Debug, Default)]
pub struct Places {
    /// Of each origin's name.
    pub origins: Vec<Place>,
    pub sites: Vec<SitePlaces>,
}

#[derive(Debug)]
pub struct SitePlaces {
    pub place: Place,
    /// Of each of the hosts.
    pub hosts: Vec<Place>,
    pub policy: PolicyPlaces,
    pub routes: Vec<RoutePlaces>,
}

#[derive(Debug)]
pub struct RoutePlaces {
    pub place: Place,
    pub policy: PolicyPlaces,
}

/// Where the settings in force were said: what a route does not say itself is where its site says it.
#[derive(Clone, Debug, Default)]
pub struct PolicyPlaces {
    origin: Option<Arc<Place>>,
    /// Where the cache was last turned on, turned off or given settings.
    cache: Option<Arc<Place>>,
    settings: Arc<Settings>,
    /// By key: `rate_limit`.
    guards: Arc<Settings>,
    is_off: bool,
}

/// By name below `cache`: `ttl`, `key.query`.
type Settings = BTreeMap<String, Arc<Place>>;

impl Places {
    /// The places in a file of which the checks have found nothing wrong.
    pub(super) fn of(root: &raw::Root) -> Places {
        let origins = root.origins.iter().flat_map(|map| &map.0).map(|(name, _)| name.place.clone());
        let sites = root.sites.iter().flat_map(|list| &list.0);
        Places { origins: origins.collect(), sites: sites.map(SitePlaces::of).collect() }
    }

    /// Those of the settings in force for a site and one of its routes, or for none of them.
    pub fn policy(&self, site: usize, route: Option<usize>) -> Option<&PolicyPlaces> {
        let site = self.sites.get(site)?;
        match route {
            Some(route) => Some(&site.routes.get(route)?.policy),
            None => Some(&site.policy),
        }
    }
}

/// Where the guards of a site or route stand, by key.
macro_rules! guards {
    ($from:ident) => {
        [
            ("https", place(&$from.https)),
            ("hsts", place(&$from.hsts)),
            ("access", place(&$from.access)),
            ("signed_url", place(&$from.signed_url)),
            ("rate_limit", place(&$from.rate_limit)),
            ("concurrency_limit", place(&$from.concurrency_limit)),
            ("bandwidth", place(&$from.bandwidth)),
            ("body_size", place(&$from.body_size)),
        ]
    };
}

impl SitePlaces {
    fn of(site: &Placed<raw::Site>) -> SitePlaces {
        let hosts = site.hosts.iter().flat_map(|list| &list.0).map(|host| host.place.clone());
        let policy = PolicyPlaces::default().refined(place(&site.origin), site.cache.as_ref()).guarded(&guards!(site));
        let route = |route: &Placed<raw::Route>| RoutePlaces {
            place: route.place.clone(),
            policy: policy.refined(place(&route.origin), route.cache.as_ref()).guarded(&guards!(route)),
        };
        let routes = site.routes.iter().flat_map(|list| &list.0).map(route).collect();
        SitePlaces { place: site.place.clone(), hosts: hosts.collect(), policy, routes }
    }
}

impl PolicyPlaces {
    /// Where the origin is named.
    pub fn origin(&self) -> Option<&Place> {
        self.origin.as_deref()
    }

    /// Where `cache` last stands; `None`: nowhere, so that its default holds.
    pub fn cache(&self) -> Option<&Place> {
        self.cache.as_deref()
    }

    /// Where a cache setting stands, by its name below `cache` (`ttl`, `key.query`); `None`: its default holds.
    pub fn setting(&self, name: &str) -> Option<&Place> {
        self.settings.get(name).map(|place| &**place)
    }

    /// Where a guard stands, by its key (`rate_limit`); `None`: its default holds.
    pub fn guard(&self, key: &str) -> Option<&Place> {
        self.guards.get(key).map(|place| &**place)
    }

    /// These with another layer of guards on top.
    fn guarded(mut self, given: &[(&str, Option<&Place>)]) -> PolicyPlaces {
        let given = given.iter().filter_map(|(key, place)| Some(((*key).to_owned(), Arc::new((*place)?.clone()))));
        let mut given = given.peekable();
        if given.peek().is_some() {
            Arc::make_mut(&mut self.guards).extend(given);
        }
        self
    }

    /// These with another layer on top, as the checks merge what the layers say.
    fn refined(&self, origin: Option<&Place>, choice: Option<&Placed<CacheChoice>>) -> PolicyPlaces {
        let mut refined = self.clone();
        if let Some(origin) = origin {
            refined.origin = Some(Arc::new(origin.clone()));
        }
        let Some(choice) = choice else { return refined };
        refined.cache = Some(Arc::new(choice.place.clone()));
        refined.is_off = matches!(choice.value, CacheChoice::Off);
        // A cache that is turned on again starts from the defaults.
        if refined.is_off || self.is_off {
            refined.settings = Arc::default();
        }
        if let CacheChoice::Keys(keys) = &choice.value {
            let mut given = Vec::new();
            keys.given("", &mut given);
            let given = given.into_iter().map(|(name, place)| (name, Arc::new(place)));
            let settings = Arc::make_mut(&mut refined.settings);
            settings.extend(given);
            // Where nothing is counted, what the site says of the counting is not in force.
            if keys.after.as_ref().is_some_and(|after| after.0 == 1) {
                settings.remove("within");
            }
        }
        refined
    }
}

fn place<T>(placed: &Option<Placed<T>>) -> Option<&Place> {
    placed.as_ref().map(|placed| &placed.place)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{cache_settings, parse};

    const YAML: &str = "\
listeners: [{ address: '127.0.0.1:8080' }]
origins:
  a: { servers: ['127.0.0.1:9000'] }
  b: { servers: ['127.0.0.1:9001'] }
sites:
  - hosts: [x.test, '*.x.test']
    origin: a
    cache: { ttl: 1h, key: { query: none, headers: [X-A] } }
    routes:
      - match: { path: /a }
        cache: { max_ttl: 2h, ttl: 30m, key: { headers: [] } }
      - match: { path: /b }
        origin: b
        cache: off
      - match: { path: /c }
  - hosts: ['*']
    origin: b
    cache: off
    routes:
      - match: { path: /d }
        cache: { ttl: 1h }
      - match: { path: /e }
        cache: on
  - hosts: [y.test]
    origin: b
  - hosts: [z.test]
    origin: b
    cache: { tiers: [memory], after: 2, within: 10m }
    routes:
      - match: { path: /f }
        cache: { after: 1 }
      - match: { path: /g }
        cache: { after: 3 }
";

    fn shown(place: Option<&Place>) -> String {
        match place {
            Some(Place { mark, path }) => format!("{}:{} {path}", mark.line, mark.column),
            None => "default".to_owned(),
        }
    }

    #[test]
    fn each_setting_is_where_it_was_said() {
        let config = parse(YAML, None, Path::new("/")).unwrap();
        let places = &config.places;
        let at = |site, route, name: &str| shown(places.policy(site, route).unwrap().setting(name));
        assert_eq!(at(0, None, "ttl"), "8:19 sites[0].cache.ttl");
        assert_eq!(at(0, None, "key.query"), "8:37 sites[0].cache.key.query");
        assert_eq!(at(0, None, "max_ttl"), "default");
        // A route's own, and what it has from its site.
        assert_eq!(at(0, Some(0), "ttl"), "11:36 sites[0].routes[0].cache.ttl");
        assert_eq!(at(0, Some(0), "key.headers"), "11:48 sites[0].routes[0].cache.key.headers");
        assert_eq!(at(0, Some(0), "key.query"), "8:37 sites[0].cache.key.query");
        assert_eq!(at(0, Some(2), "ttl"), "8:19 sites[0].cache.ttl");
        // Off and on again.
        assert_eq!(at(0, Some(1), "ttl"), "default");
        assert_eq!(at(1, Some(0), "ttl"), "21:23 sites[1].routes[0].cache.ttl");
        // What counts where nothing is counted is nowhere said.
        assert_eq!(at(3, None, "within"), "28:49 sites[3].cache.within");
        assert_eq!(at(3, Some(0), "within"), "default");
        assert_eq!(at(3, Some(0), "tiers"), "28:22 sites[3].cache.tiers");
        assert_eq!(at(3, Some(1), "within"), "28:49 sites[3].cache.within");
        let cache = |site, route| shown(places.policy(site, route).unwrap().cache());
        assert_eq!(cache(0, Some(1)), "14:16 sites[0].routes[1].cache");
        assert_eq!(cache(1, Some(1)), "23:16 sites[1].routes[1].cache");
        assert_eq!(cache(0, Some(2)), "8:14 sites[0].cache");
        assert_eq!(cache(2, None), "default");
        let origin = |site, route| shown(places.policy(site, route).unwrap().origin());
        assert_eq!(origin(0, Some(0)), "7:13 sites[0].origin");
        assert_eq!(origin(0, Some(1)), "13:17 sites[0].routes[1].origin");
        assert_eq!(shown(places.origins.get(1)), "4:3 origins.b");
        assert_eq!(shown(places.sites[0].hosts.get(1)), "6:21 sites[0].hosts[1]");
        assert_eq!(shown(Some(&places.sites[0].routes[2].place)), "15:9 sites[0].routes[2]");
        assert!(places.policy(9, None).is_none() && places.policy(0, Some(9)).is_none());
    }

    /// What has no place has its default, and what has one is a setting.
    #[test]
    fn places_and_values_agree() {
        let config = parse(YAML, None, Path::new("/")).unwrap();
        let defaults = cache_settings(&Default::default(), &Default::default());
        for (index, site) in config.sites.iter().enumerate() {
            let policies = site.routes.iter().enumerate().map(|(route, r)| (Some(route), &r.policy));
            for (route, policy) in policies.chain([(None, &site.policy)]) {
                let places = config.places.policy(index, route).unwrap();
                let Some(cache) = &policy.cache else {
                    assert!(places.settings.is_empty());
                    continue;
                };
                let settings = cache_settings(cache, &policy.key);
                for (setting, default) in settings.iter().zip(&defaults) {
                    assert!(places.setting(&setting.0).is_some() || setting == default, "{setting:?}");
                }
                for name in places.settings.keys() {
                    assert!(settings.iter().any(|(setting, _)| setting == name), "{name}");
                }
            }
        }
    }

    #[test]
    fn every_declared_setting_is_listed() {
        let settings = cache_settings(&Default::default(), &Default::default());
        let value = |name: &str| settings.iter().find(|(setting, _)| setting == name).map(|(_, value)| value.as_str());
        assert_eq!(value("ttl"), Some("none"));
        assert_eq!(value("override"), Some("false"));
        assert_eq!(value("heuristics"), Some("true"));
        assert_eq!(value("ttl_by_status"), Some("{}"));
        assert_eq!(value("key.query"), Some("all"));
        assert_eq!(value("key.headers"), Some("[]"));
        assert_eq!(value("tiers"), Some("[memory, disk]"));
        assert_eq!(value("within"), Some("1h"));
        assert!(settings.len() >= 13, "{settings:?}");
    }
}
