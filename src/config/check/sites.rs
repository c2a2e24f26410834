//! Sites: their hosts, their origins, their names.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::cache::{self, Settings};
use super::guard::{Guards, Layer};
use super::{purge, routes};
use crate::config::Env;
use crate::config::decode::Placed;
use crate::config::model::{Guard, HostPattern, RequestPolicy, Site};
use crate::config::raw;
use crate::config::report::{Place, Report, suggest};
use crate::config::words::OriginName;
use crate::http_cache::Tiers;

/// `there` are the tiers that the store has.
pub(super) fn sites(
    root: &raw::Root,
    there: Tiers,
    base: &Path,
    env: Env<'_>,
    report: &mut Report,
) -> Option<Vec<Site>> {
    let mut origins = OriginIndex::new(root);
    let mut guards = Guards::new(root, base);
    let mut hosts = HashMap::new();
    let mut names = HashMap::new();
    let mut checked = Vec::new();
    for raw in &root.sites.as_ref()?.0 {
        unique_hosts(raw, &mut hosts, report);
        checked.push(site(raw, there, &mut origins, &mut guards, &mut names, base, env, report));
    }
    origins.warn_of_unused(report);
    guards.warn_of_unused(report);
    checked.into_iter().collect()
}

#[allow(clippy::too_many_arguments, reason = "what all sites share, each part of which another room uses")]
fn site(
    raw: &Placed<raw::Site>,
    there: Tiers,
    origins: &mut OriginIndex<'_>,
    guards: &mut Guards<'_>,
    names: &mut HashMap<String, usize>,
    base: &Path,
    env: Env<'_>,
    report: &mut Report,
) -> Option<Site> {
    let origin = raw.origin.as_ref().and_then(|name| origins.find(name, report));
    let settings = cache::refine(&cache::on(), raw.cache.as_ref(), there, report);
    let hosts =
        raw.hosts.as_ref().map(|list| list.0.iter().map(|host| host.value.clone()).collect::<Vec<HostPattern>>());
    let first = hosts.as_ref().and_then(|hosts| hosts.first()).map(ToString::to_string);
    let name = raw.name.as_ref().map(|name| name.0.clone()).or(first);
    let called = name.as_deref().unwrap_or_default();
    let guard = guards.guard(&Layer::from(raw), None, called, report);
    let site = routes::Site { name: called, origin, settings: &settings, guard: guard.as_ref() };
    let routes = raw.routes.as_ref().and_then(|list| routes::routes(&list.0, &site, there, origins, guards, report));
    let purge = raw.purge.as_ref().map(|raw| purge::method(raw, base, env, report));
    let (hosts, name) = (hosts?, name?);
    let place = raw.name.as_ref().map_or(&raw.place, |name| &name.place);
    // A host that stands twice has been reported, and would be reported here again as the name that follows from it.
    if let Some(line) = names.insert(name.clone(), place.mark.line)
        && raw.name.is_some()
    {
        report.error(place, format!("the name `{name}` is already that of the site on line {line}"));
    }
    let purge = match purge {
        Some(purge) => Some(purge?),
        None => None,
    };
    Some(Site { name: name.into(), hosts, policy: policy(origin?, settings, guard?), purge, routes: routes? })
}

pub(super) fn policy(origin: usize, settings: Settings, guard: Guard) -> Arc<RequestPolicy> {
    Arc::new(match settings {
        Some((cache, key)) => RequestPolicy { origin, cache: Some(cache), key, guard },
        None => RequestPolicy { origin, cache: None, key: Default::default(), guard },
    })
}

/// A host belongs to one site, once.
fn unique_hosts<'a>(site: &'a raw::Site, seen: &mut HashMap<&'a HostPattern, &'a Place>, report: &mut Report) {
    for host in site.hosts.iter().flat_map(|hosts| &hosts.0) {
        match seen.get(&host.value) {
            Some(first) => report.error(
                &host.place,
                format!("the host `{}` is already served by {} on line {}", host.value, first.path, first.mark.line),
            ),
            None => _ = seen.insert(&host.value, &host.place),
        }
    }
}

/// Origins by name, and which of them anything refers to.
pub(super) struct OriginIndex<'a> {
    names: Vec<&'a Placed<OriginName>>,
    used: Vec<bool>,
    /// Without the origins, every reference would look wrong.
    known: bool,
}

impl<'a> OriginIndex<'a> {
    fn new(root: &'a raw::Root) -> Self {
        let names: Vec<_> = root.origins.iter().flat_map(|map| map.0.iter().map(|(name, _)| name)).collect();
        let used = vec![false; names.len()];
        OriginIndex { names, used, known: root.origins.is_some() }
    }

    /// The index of the origin with this name.
    pub fn find(&mut self, name: &Placed<OriginName>, report: &mut Report) -> Option<usize> {
        if let Some(i) = self.names.iter().position(|n| n.0 == name.0) {
            self.used[i] = true;
            return Some(i);
        }
        // An origin that is there and wrong has been reported as such.
        let broken = report.is_wrong(&format!("origins.{}", name.0));
        if self.known && !broken {
            let names: Vec<&str> = self.names.iter().map(|n| n.0.as_str()).collect();
            report.error(&name.place, format!("there is no origin `{}`{}", name.0, suggest(&name.0, &names)));
        }
        None
    }

    fn warn_of_unused(&self, report: &mut Report) {
        for (name, used) in self.names.iter().zip(&self.used) {
            if !used {
                report.warn(&name.place, format!("the origin `{}` is not used by any site", name.0));
            }
        }
    }
}
