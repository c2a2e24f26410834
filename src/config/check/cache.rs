//! Cache settings: a site's, and a route's on top of them.

use crate::config::decode::{FromText, List, Placed};
use crate::config::model::{KeyPolicy, QueryKey};
use crate::config::raw;
use crate::config::report::{Place, Report};
use crate::config::units::show_duration;
use crate::config::words::{CacheChoice, QueryChoice, TagChoice, Tier};
use crate::http_cache::{Policy, Reduction, Tiers};

/// Cache settings in force; `None`: the cache is off.
pub(super) type Settings = Option<(Policy, KeyPolicy)>;

/// What a site that says nothing about its cache has.
pub(super) fn on() -> Settings {
    Some((Policy::default(), KeyPolicy::default()))
}

/// `base` as refined by `choice`. Where the base is off, the refinement starts from the defaults. `there` are the tiers
/// that the store has.
pub(super) fn refine(
    base: &Settings,
    choice: Option<&Placed<CacheChoice>>,
    there: Tiers,
    report: &mut Report,
) -> Settings {
    let Some(choice) = choice else { return base.clone() };
    match &choice.value {
        CacheChoice::Off => None,
        CacheChoice::On => base.clone().or_else(on),
        CacheChoice::Keys(keys) => {
            let (mut policy, mut key) = base.clone().unwrap_or_default();
            set_policy(&mut policy, keys);
            if let Some(raw) = &keys.key {
                set_key(&mut key, raw, report);
            }
            if let Some(raw) = &keys.vary {
                set_reduction(&mut policy.vary, raw, report);
            }
            if let Some(list) = &keys.tiers {
                policy.tiers = tiers(list, there, report);
            }
            effectless(&policy, keys, report);
            set_admission(&mut policy, keys, &choice.place, report);
            set_tags(&mut policy, keys, &choice.place, report);
            Some((policy, key))
        }
    }
}

fn set_policy(policy: &mut Policy, keys: &raw::Cache) {
    fn set<T: Copy>(target: &mut T, given: &Option<Placed<T>>) {
        if let Some(given) = given {
            *target = given.value;
        }
    }
    for (target, given) in [
        (&mut policy.ttl, &keys.ttl),
        (&mut policy.max_ttl, &keys.max_ttl),
        (&mut policy.stale_while_revalidate, &keys.stale_while_revalidate),
        (&mut policy.stale_if_error, &keys.stale_if_error),
    ] {
        if let Some(given) = given {
            *target = Some(given.value);
        }
    }
    set(&mut policy.override_origin, &keys.r#override);
    set(&mut policy.heuristics, &keys.heuristics);
    set(&mut policy.store_set_cookie, &keys.store_set_cookie);
    set(&mut policy.ignore_client_cache_control, &keys.ignore_client_cache_control);
    if let Some(map) = &keys.ttl_by_status {
        policy.ttl_by_status = map.0.iter().map(|(status, ttl)| (status.0, ttl.value)).collect();
        policy.ttl_by_status.sort_unstable();
    }
}

/// Reports settings of this layer that contradict the others in force, or do nothing beside them.
fn effectless(policy: &Policy, keys: &raw::Cache, report: &mut Report) {
    if let Some(given) = &keys.r#override
        && given.value
    {
        if policy.ttl.is_none() {
            report.error(&given.place, "`override: true` has no effect without `ttl`");
        } else if let Some(heuristics) = keys.heuristics.as_ref().filter(|h| h.value) {
            report.error(&heuristics.place, "`heuristics: true` has no effect beside `override: true`");
        }
    }
    if let (Some(ttl), Some(max)) = (policy.ttl, policy.max_ttl)
        && max < ttl
        && let Some(place) = keys.max_ttl.as_ref().or(keys.ttl.as_ref()).map(|given| &given.place)
    {
        report.error(place, format!("max_ttl ({}) is shorter than ttl ({})", show_duration(max), show_duration(ttl)));
    }
    if let (Some(max), Some(map)) = (policy.max_ttl, &keys.ttl_by_status) {
        for (status, ttl) in map.0.iter().filter(|(_, ttl)| ttl.value > max) {
            let (ttl_text, max) = (show_duration(ttl.value), show_duration(max));
            report.error(&ttl.place, format!("the ttl for {} ({ttl_text}) is longer than max_ttl ({max})", status.0));
        }
    }
}

/// The tiers of a list, at least one of which must be there.
fn tiers(list: &Placed<List<Tier>>, there: Tiers, report: &mut Report) -> Tiers {
    let names = distinct(&list.0, |tier| tier.as_str().to_owned(), report);
    let has = |tier: Tier| names.iter().any(|name| name == tier.as_str());
    let tiers = Tiers { memory: has(Tier::Memory), disk: has(Tier::Disk) };
    // What a list says that is wrong in part is not known.
    if !tiers.meets(there) && !report.is_wrong(&list.place.path) {
        let why = if there.memory { "there is no `cache.disk`" } else { "`cache.memory` is `off`" };
        report.error(&list.place, format!("nothing could be stored: {why}"));
    }
    tiers
}

/// From which request on a response is stored.
fn set_admission(policy: &mut Policy, keys: &raw::Cache, cache: &Place, report: &mut Report) {
    if let Some(after) = &keys.after {
        policy.after = u8::try_from(after.0).unwrap_or(u8::MAX);
    }
    if policy.after > 1 {
        policy.within = keys.within.as_ref().map_or(policy.within, |within| within.0);
        return;
    }
    // An `after` that is given and wrong has been reported.
    if let Some(within) = &keys.within
        && !report.is_wrong(&format!("{}.after", cache.path))
    {
        report.error(&within.place, "`within` has no effect where `after` is 1");
    }
    policy.within = Policy::WITHIN;
}

/// Which fields list tags, and whether clients see them.
fn set_tags(policy: &mut Policy, keys: &raw::Cache, cache: &Place, report: &mut Report) {
    if let Some(choice) = &keys.tags {
        policy.tags = match &choice.value {
            TagChoice::Off => Vec::new(),
            TagChoice::Fields(list) => {
                distinct(&list.0, |field| field.0.to_string(), report);
                list.0.iter().map(|field| field.value.0.clone()).collect()
            }
        };
    }
    if let Some(strip) = &keys.strip_tags {
        policy.strip_tags = strip.value;
    }
    if policy.strip_tags && policy.tags.is_empty() {
        policy.strip_tags = false;
        // A `tags` that is given and wrong has been reported.
        if let Some(strip) = keys.strip_tags.as_ref().filter(|strip| strip.value)
            && !report.is_wrong(&format!("{}.tags", cache.path))
        {
            report.error(&strip.place, "`strip_tags: true` has no effect beside `tags: off`");
        }
    }
}

fn set_reduction(reduction: &mut Reduction, raw: &raw::Vary, report: &mut Report) {
    if let Some(list) = &raw.accept_encoding {
        reduction.accept_encoding = distinct(&list.0, |coding| coding.0.clone(), report);
    }
    if let Some(list) = &raw.accept_language {
        reduction.accept_language = distinct(&list.0, |tag| tag.0.clone(), report);
    }
}

/// The words of a list as they stand; one that stands twice is a mistake.
fn distinct<T>(list: &[Placed<T>], word: impl Fn(&T) -> String, report: &mut Report) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for item in list {
        let next = word(&item.value);
        if words.iter().any(|known| known.eq_ignore_ascii_case(&next)) {
            report.error(&item.place, format!("`{next}` is already in the list"));
        } else {
            words.push(next);
        }
    }
    words
}

fn set_key(key: &mut KeyPolicy, raw: &Placed<raw::Key>, report: &mut Report) {
    if let Some(query) = &raw.query {
        key.query = match &query.value {
            QueryChoice::All => QueryKey::All,
            QueryChoice::None => QueryKey::None,
            QueryChoice::Only(list) => QueryKey::Only(sorted(&list.0, |p| p.0.clone(), report)),
            QueryChoice::Ignore(list) => QueryKey::Ignore(sorted(&list.0, |p| p.0.clone(), report)),
        };
    }
    if let Some(sort) = &raw.sort {
        if sort.value && key.query == QueryKey::None {
            report.error(&sort.place, "`sort: true` has no effect beside `query: none`");
        }
        key.sort = sort.value;
    }
    if let Some(list) = &raw.headers {
        key.headers = sorted(&list.0, |h| h.0.clone(), report);
    }
    if let Some(list) = &raw.cookies {
        key.cookies = sorted(&list.0, |c| c.0.clone(), report);
    }
}

/// The names of a list in their order; one that stands twice is a mistake.
fn sorted<T: FromText>(list: &[Placed<T>], name: impl Fn(&T) -> String, report: &mut Report) -> Vec<String> {
    let mut names: Vec<(String, &Placed<T>)> = list.iter().map(|item| (name(&item.value), item)).collect();
    // Stable: of two that are equal, the one further down is the mistake.
    names.sort_by(|a, b| a.0.cmp(&b.0));
    for pair in names.windows(2) {
        if pair[0].0 == pair[1].0 {
            report.error(&pair[1].1.place, format!("`{}` is already in the list", pair[1].0));
        }
    }
    names.into_iter().map(|(name, _)| name).collect()
}
