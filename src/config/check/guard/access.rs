//! Which requests are let in.

use std::path::Path;

use ipnet::IpNet;

use super::super::resolve;
use super::distinct;
use super::geo::Known;
use crate::config::decode::{List, Map, OneOrMany, Placed};
use crate::config::model::{Access, Networks, Referers, ValueMatch};
use crate::config::networks;
use crate::config::raw;
use crate::config::report::{Place, Report};
use crate::config::words::{AsNumber, Country, Expectation, FieldName, NetworkSource, RefererWord};

/// Checks the rules of a site or route. `base` is for reading files.
pub(super) fn access(
    raw: &raw::Access,
    place: &Place,
    geo: &Known,
    base: &Path,
    report: &mut Report,
) -> Option<Access> {
    let known = report.errors.len();
    let access = Access {
        allow: sources(&raw.allow, base, report),
        deny: sources(&raw.deny, base, report),
        allow_countries: countries(&raw.allow_countries, "allow_countries", geo, report),
        deny_countries: countries(&raw.deny_countries, "deny_countries", geo, report),
        allow_asns: asns(&raw.allow_asns, "allow_asns", geo, report),
        deny_asns: asns(&raw.deny_asns, "deny_asns", geo, report),
        methods: methods(raw, report),
        headers: headers(&raw.headers, report),
        deny_paths: many(&raw.deny_paths, |path| path.clone(), report),
        deny_user_agents: many(&raw.deny_user_agents, |agent| agent.0.clone(), report),
        referers: raw.referers.as_ref().map(|list| referers(list, report)),
        identities: many(&raw.identities, |name| name.0.clone(), report),
        status: raw.status.as_ref()?.0,
    };
    // Of what is given and wrong, more may be missing than is known here.
    if report.errors.len() > known || report.is_wrong(&place.path) {
        return None;
    }
    contradictions(raw, &access, report);
    nothing(raw, &access, place, report);
    Some(access)
}

/// Networks, those that stand here together, and files that can be read.
fn sources(list: &Option<Placed<List<NetworkSource, 0>>>, base: &Path, report: &mut Report) -> Vec<Networks> {
    let list = list.iter().flat_map(|list| &list.0);
    let mut here: Vec<IpNet> = Vec::new();
    let mut files = Vec::new();
    for item in list {
        match &item.value {
            NetworkSource::Net(net) if here.contains(net) => {
                report.error(&item.place, format!("`{net}` is already in the list"));
            }
            NetworkSource::Net(net) => here.push(*net),
            NetworkSource::File(path) => {
                let file = Networks::File(resolve(base, path));
                if files.contains(&file) {
                    report.error(&item.place, format!("`file:{}` is already in the list", path.display()));
                    continue;
                }
                if let Err(why) = networks::read(&resolve(base, path)) {
                    report.error(&item.place, why);
                }
                files.push(file);
            }
        }
    }
    let here = (!here.is_empty()).then_some(Networks::These(here));
    here.into_iter().chain(files).collect()
}

fn countries(list: &Option<Placed<List<Country, 0>>>, key: &str, geo: &Known, report: &mut Report) -> Vec<[u8; 2]> {
    let Some(list) = list.as_ref().filter(|list| !list.0.is_empty()) else { return Vec::new() };
    geo.need_country(key, &list.place, report);
    distinct(&list.0, |country| country_text(country.0), report);
    list.0.iter().map(|country| country.0).collect()
}

pub(in crate::config::check) fn country_text(country: [u8; 2]) -> String {
    country.map(char::from).iter().collect()
}

fn asns(list: &Option<Placed<List<AsNumber, 0>>>, key: &str, geo: &Known, report: &mut Report) -> Vec<u32> {
    let Some(list) = list.as_ref().filter(|list| !list.0.is_empty()) else { return Vec::new() };
    geo.need_asn(key, &list.place, report);
    distinct(&list.0, |number| number.0, report)
}

/// HEAD goes with GET.
fn methods(raw: &raw::Access, report: &mut Report) -> Vec<String> {
    let mut methods = many(&raw.methods, |method| method.0.clone(), report);
    if let Some(get) = methods.iter().position(|method| method == "GET")
        && !methods.iter().any(|method| method == "HEAD")
    {
        methods.insert(get + 1, "HEAD".to_owned());
    }
    methods
}

fn many<T, U: PartialEq + ToString>(
    list: &Option<Placed<OneOrMany<T>>>,
    value: impl Fn(&T) -> U,
    report: &mut Report,
) -> Vec<U> {
    list.as_ref().map_or_else(Vec::new, |list| distinct(&list.0, value, report))
}

fn headers(map: &Option<Placed<Map<FieldName, Expectation>>>, report: &mut Report) -> Vec<(String, ValueMatch)> {
    let mut pairs: Vec<(String, ValueMatch)> = Vec::new();
    for (name, wanted) in map.iter().flat_map(|map| &map.0) {
        if pairs.iter().any(|(other, _)| *other == name.0) {
            // Equal as written has been reported as a duplicate key; this is about case.
            report.error(&name.place, format!("`{}` is already given in another spelling", name.0));
        } else {
            pairs.push((name.0.clone(), wanted.value.0.clone()));
        }
    }
    pairs
}

fn referers(list: &OneOrMany<RefererWord>, report: &mut Report) -> Referers {
    let text = |word: &RefererWord| match word {
        RefererWord::None => "none".to_owned(),
        RefererWord::Host(host) => host.to_string(),
    };
    distinct(&list.0, text, report);
    let hosts = list.0.iter().filter_map(|word| match &word.value {
        RefererWord::None => None,
        RefererWord::Host(host) => Some(host.clone()),
    });
    Referers { hosts: hosts.collect(), none: list.0.iter().any(|word| word.value == RefererWord::None) }
}

/// Rules that cancel each other out.
fn contradictions(raw: &raw::Access, access: &Access, report: &mut Report) {
    let mut beside = |deny: Option<&Place>, key: &str, allow: bool, other: &str| {
        if let Some(place) = deny.filter(|_| allow) {
            report.error(
                place,
                format!("`{key}` has no effect beside `{other}`: all that is not listed there is denied"),
            );
        }
    };
    let countries = raw.deny_countries.as_ref().filter(|list| !list.0.is_empty()).map(|list| &list.place);
    beside(countries, "deny_countries", !access.allow_countries.is_empty(), "allow_countries");
    let asns = raw.deny_asns.as_ref().filter(|list| !list.0.is_empty()).map(|list| &list.place);
    beside(asns, "deny_asns", !access.allow_asns.is_empty(), "allow_asns");
    let denied: Vec<&IpNet> = these(&access.deny).collect();
    for item in raw.allow.iter().flat_map(|list| &list.0) {
        if let NetworkSource::Net(net) = &item.value
            && let Some(wide) = denied.iter().find(|wide| wide.contains(net))
        {
            // What others write as `allow …; deny all`.
            let hint = match wide.prefix_len() {
                0 => "; leave that out: whoever is not allowed is denied",
                _ => "",
            };
            report.error(&item.place, format!("`{net}` has no effect: it is denied by `{wide}`{hint}"));
        }
    }
    if let (Some(referers), Some(list)) = (&access.referers, &raw.referers)
        && referers.none
        && referers.hosts.contains(&crate::config::model::HostPattern::Any)
    {
        report.error(&list.place, "`none` and `*` together let every request in");
    }
    for (key, value) in raw.headers.iter().flat_map(|map| &map.0) {
        if key.0 == "host" && value.0 != ValueMatch::Present {
            report.error(&key.place, "the host chooses the site: see `hosts`");
        }
    }
}

fn these(list: &[Networks]) -> impl Iterator<Item = &IpNet> {
    list.iter().flat_map(|networks| match networks {
        Networks::These(networks) => networks.as_slice(),
        Networks::File(_) => &[],
    })
}

/// Rules of which there are none, or a status that nobody gets.
fn nothing(raw: &raw::Access, access: &Access, place: &Place, report: &mut Report) {
    let by_methods = !access.methods.is_empty();
    let by_others = !(access.allow.is_empty()
        && access.deny.is_empty()
        && access.allow_countries.is_empty()
        && access.deny_countries.is_empty()
        && access.allow_asns.is_empty()
        && access.deny_asns.is_empty()
        && access.headers.is_empty()
        && access.deny_paths.is_empty()
        && access.deny_user_agents.is_empty()
        && access.referers.is_none()
        && access.identities.is_empty());
    match (by_methods, by_others, raw.status.as_ref().filter(|status| status.given)) {
        (false, false, _) => report.error(place, "at least one rule is needed; `off` lets every request in"),
        (true, false, Some(status)) => {
            report.error(&status.place, "`status` has no effect beside `methods` alone: other methods get a 405");
        }
        _ => {}
    }
}
