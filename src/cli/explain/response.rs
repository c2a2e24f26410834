//! What would become of an origin's response, and of the same request once more.

use http::header::{DATE, HeaderMap, RANGE, SET_COOKIE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use pingora::http::RequestHeader;

use super::ask::Answer;
use super::gather::{hex, shown};
use super::report::{Again, Dropped, Facts, Response, Verdict};
use crate::config::model::{Config, RequestPolicy, Site};
use crate::http_cache::{
    self, Bypass, CacheStatus, Control, FwdReason, Handling, RequestDirectives, RequestFacts, Reuse, Selection, Stored,
    Timestamp, Variance,
};
use crate::site::{self, Visitor};
use crate::store::{Disks, ObjectKey};

/// The request, as its origin would see it.
pub struct Asked<'a> {
    pub config: &'a Config,
    pub request: &'a RequestHeader,
    pub site: &'a Site,
    pub policy: &'a RequestPolicy,
    /// In normal form.
    pub host: &'a str,
    pub bypass: Option<Bypass>,
    pub directives: RequestDirectives,
    pub trusted: bool,
    pub visitor: Visitor<'a>,
}

/// What becomes of a response that arrives `now`, where nothing was stored before.
pub fn judge(asked: &Asked<'_>, answer: &Answer, now: Timestamp) -> Response {
    let mut headers = answer.headers.clone();
    let mut stripped = Vec::new();
    for name in http_cache::hop_by_hop(&headers) {
        headers.remove(&name);
        stripped.push(dropped(&name, "It is for one hop (RFC 9110 §7.6.1)."));
    }
    let control = Control::of(&headers);
    let verdict = storable(asked, answer, &headers, now);
    if let Ok(stored) = &verdict {
        for name in stored.strip.iter().filter(|name| headers.contains_key(*name)) {
            let why = match *name == SET_COOKIE {
                true => "It is for the client that asked (RFC 9111 §7.3).",
                false => "The response keeps it from others (RFC 9111 §5.2.2.4, §5.2.2.7).",
            };
            stripped.push(dropped(name, why));
        }
        stored.strip.iter().for_each(|name| _ = headers.remove(name));
    }
    // RFC 9110 §6.6.1: what has no Date is stored with the time of its arrival for one.
    headers.entry(DATE).or_insert_with(|| http_cache::http_date(now));
    let (request, status) = (asked.request, answer.status);
    // Only a request that the cache has a part in is answered by it.
    let for_this = asked.bypass.is_none();
    Response {
        status: status.as_u16(),
        stored: verdict.is_ok(),
        for_later_gets: verdict.is_ok() && !for_this,
        governed_by: control.field.name().as_str().to_owned(),
        facts: verdict.as_ref().ok().map(|stored| facts(asked, stored, &headers)),
        stripped,
        invalidates: http_cache::invalidated(&request.method, status, asked.host, target(asked), &headers),
        cache_status: first_status(asked, answer, &verdict, now),
        again: verdict.as_ref().ok().filter(|_| for_this).map(|stored| again(asked, answer, stored, &headers)),
        not_stored: verdict.err(),
    }
}

fn dropped(name: &HeaderName, why: &'static str) -> Dropped {
    Dropped { field: name.as_str().to_owned(), why }
}

fn storable(asked: &Asked<'_>, answer: &Answer, headers: &HeaderMap, now: Timestamp) -> Result<Stored, Verdict> {
    let verdict = |word: &'static str, why: &str| Verdict { word, why: why.to_owned() };
    let policy = match (asked.bypass, &asked.policy.cache) {
        (None, Some(policy)) => policy,
        (bypass, _) => {
            let bypass = bypass.unwrap_or(Bypass::Off);
            return posted(asked, answer, headers, now).ok_or_else(|| verdict(bypass.as_str(), bypass.explain()));
        }
    };
    if asked.directives.only_if_cached {
        let why = "The request says `only-if-cached`, and nothing is stored: it is answered with 504, and the origin is \
                   not asked (RFC 9111 §5.2.1.7).";
        return Err(verdict(ONLY_IF_CACHED, why));
    }
    // The origin is asked by GET even for a HEAD, so that the answer can be stored.
    let facts = RequestFacts::new(&Method::GET, &asked.request.headers, &asked.directives, now);
    let stored = http_cache::storability(&facts, answer.status, headers, policy, now)
        .map_err(|rule| verdict(rule.as_str(), rule.explain()))?;
    match too_large(asked, headers) {
        Some(why) => Err(Verdict { word: "too-large", why }),
        None => Ok(stored),
    }
}

/// A response to POST that answers later GETs (RFC 9110 §9.3.3), if it is one.
fn posted(asked: &Asked<'_>, answer: &Answer, headers: &HeaderMap, now: Timestamp) -> Option<Stored> {
    let (request, target) = (asked.request, target(asked));
    let says_so = request.method == Method::POST
        && answer.status == StatusCode::OK
        && http_cache::describes_target(asked.host, target, headers);
    if !says_so || too_large(asked, headers).is_some() {
        return None;
    }
    let (policy, ..) =
        site::key_of_get(asked.site, asked.host, target, &request.headers, asked.trusted, asked.visitor)?;
    let directives = RequestDirectives::parse(&request.headers, policy);
    let facts = RequestFacts::new(&request.method, &request.headers, &directives, now);
    let facts = RequestFacts { describes_target: true, ..facts };
    http_cache::storability(&facts, answer.status, headers, policy, now).ok()
}

/// Why none of the tiers takes content of this length, if that is so.
fn too_large(asked: &Asked<'_>, headers: &HeaderMap) -> Option<String> {
    let length = http_cache::content_length(headers)?;
    let config = asked.config;
    let (policy, key, _) =
        site::key_of_get(asked.site, asked.host, target(asked), &asked.request.headers, asked.trusted, asked.visitor)?;
    let memory = policy.tiers.memory.then(|| (config.memory.max_object, "`cache.memory.max_object`".to_owned()));
    let disk = policy.tiers.disk.then(|| Disks::settings_of(&config.disks, &ObjectKey::primary(key.hash).id()));
    let disk = disk.flatten().map(|disk| {
        let which = format!("`max_object` of the disk {}", disk.path.display());
        (disk.max_object, which)
    });
    let (largest, which) = memory.into_iter().chain(disk).max_by_key(|(largest, _)| *largest)?;
    (length > largest).then(|| format!("Its content of {length} bytes is larger than {which}, {largest} bytes."))
}

/// The tier that answers the same request once more.
fn tier(asked: &Asked<'_>, headers: &HeaderMap) -> &'static str {
    let largest = asked.config.memory.max_object;
    let tiers = asked.policy.cache.as_ref().map(|policy| policy.tiers).unwrap_or_default();
    let fits = http_cache::content_length(headers).map_or(largest > 0, |length| length <= largest);
    if tiers.memory && fits { "memory" } else { "disk" }
}

fn target<'a>(asked: &Asked<'a>) -> &'a str {
    asked.request.uri.path_and_query().map_or("/", |target| target.as_str())
}

const ONLY_IF_CACHED: &str = "only-if-cached";

fn facts(asked: &Asked<'_>, stored: &Stored, headers: &HeaderMap) -> Facts {
    let (facts, freshness) = (&stored.facts, stored.freshness);
    let variant = match http_cache::variance(headers, &asked.request.headers) {
        Variance::Key(key) => Some(hex(&key)),
        Variance::None | Variance::Any => None,
    };
    let varies_on = http_cache::varies_on(headers).unwrap_or_default();
    Facts {
        lifetime_ms: u64::try_from(freshness.lifetime.as_millis()).unwrap_or(u64::MAX),
        source: Verdict { word: freshness.source.as_str(), why: freshness.source.explain().to_owned() },
        initial_age_ms: facts.initial_age_ms,
        fresh_for_ms: facts.fresh_until.millis_since(facts.received),
        fresh_until: httpdate::fmt_http_date(facts.fresh_until.into()),
        stale_while_revalidate_ms: facts.stale_while_revalidate_ms,
        stale_if_error_ms: facts.stale_if_error_ms,
        must_revalidate: facts.must_revalidate,
        no_cache: facts.no_cache,
        immutable: facts.immutable,
        varies_on: varies_on.iter().map(|name| name.to_ascii_lowercase()).collect(),
        variant,
    }
}

/// Cache-Status of the answer to the first request.
fn first_status(asked: &Asked<'_>, answer: &Answer, verdict: &Result<Stored, Verdict>, now: Timestamp) -> String {
    let detail = match (asked.bypass, verdict) {
        (Some(_), _) | (None, Ok(_)) => None,
        (None, Err(verdict)) if verdict.word == ONLY_IF_CACHED => {
            return written(CacheStatus { handling: Handling::Neither, ttl: None, key: None, detail: Some("local") });
        }
        (None, Err(verdict)) => Some(verdict.word),
    };
    let handling = Handling::Fwd {
        reason: asked.bypass.map_or(FwdReason::UriMiss, Bypass::fwd),
        status: Some(answer.status),
        stored: verdict.is_ok(),
        collapsed: false,
    };
    let ttl = verdict.as_ref().ok().filter(|_| asked.bypass.is_none()).map(|stored| stored.facts.ttl(now));
    written(CacheStatus { handling, ttl, key: None, detail })
}

fn written(status: CacheStatus<'_>) -> String {
    let mut line = Vec::new();
    status.write(&mut line);
    shown(&line)
}

/// What the same request gets when it comes again.
fn again(asked: &Asked<'_>, answer: &Answer, stored: &Stored, headers: &HeaderMap) -> Again {
    let (facts, directives) = (&stored.facts, &asked.directives);
    let now = facts.received.plus_millis(i64::from(answer.again_after) * 1000);
    let reuse = http_cache::reuse(facts, directives, now);
    let ttl = facts.ttl(now);
    let hit = |detail: &'static str| written(CacheStatus::hit(ttl, detail));
    let (word, why, cache_status) = match reuse {
        Reuse::Fresh => ("fresh", "It is fresh (RFC 9111 §4.2).", hit(tier(asked, headers))),
        Reuse::Stale => {
            ("stale", "The request's `max-stale` takes it as it is (RFC 9111 §5.2.1.2).", hit(tier(asked, headers)))
        }
        Reuse::StaleWhileRevalidate => (
            "stale-while-revalidate",
            "It is stale, and served while it is refreshed in the background (RFC 5861 §3).",
            hit("stale-while-revalidate"),
        ),
        Reuse::Revalidate(reason) => {
            ("revalidate", reason.explain(), written(CacheStatus::fwd(reason.fwd(facts.is_fresh(now)))))
        }
        Reuse::OnlyIfCached => (
            ONLY_IF_CACHED,
            "It would have to be validated, and the request wants only what is stored (RFC 9111 §5.2.1.7).",
            written(CacheStatus { handling: Handling::Neither, ttl: None, key: None, detail: Some("local") }),
        ),
    };
    let asks = matches!(reuse, Reuse::Revalidate(_) | Reuse::StaleWhileRevalidate);
    Again {
        after_seconds: answer.again_after,
        reuse: Verdict { word, why: why.to_owned() },
        status: status(asked, answer, stored, headers, reuse, now),
        age_seconds: facts.age_seconds(now),
        ttl_seconds: ttl,
        validators: if asks { validators(headers) } else { Vec::new() },
        stale_if_error: matches!(reuse, Reuse::Revalidate(_)) && facts.stale_if_error_allowed(directives, now),
        cache_status,
    }
}

fn validators(headers: &HeaderMap) -> Vec<String> {
    let (etag, modified) = http_cache::revalidation_fields(headers);
    let line = |name: &str, value: HeaderValue| format!("{name}: {}", shown(value.as_bytes()));
    let etag = etag.map(|value| line("if-none-match", value));
    etag.into_iter().chain(modified.map(|value| line("if-modified-since", value))).collect()
}

/// The status of an answer from the store, as far as it is known without the content.
fn status(
    asked: &Asked<'_>,
    answer: &Answer,
    stored: &Stored,
    headers: &HeaderMap,
    reuse: Reuse,
    now: Timestamp,
) -> Option<u16> {
    match reuse {
        Reuse::Fresh | Reuse::Stale | Reuse::StaleWhileRevalidate => {}
        Reuse::Revalidate(_) => return None,
        Reuse::OnlyIfCached => return Some(504),
    }
    let request = asked.request;
    let length = http_cache::content_length(headers);
    // Which part it is depends on how much there is.
    let selected = http_cache::select(
        &request.method,
        &request.headers,
        answer.status,
        headers,
        &stored.facts,
        length.unwrap_or(0),
        now,
    );
    match selected {
        Selection::NotModified => Some(304),
        _ if length.is_none() && request.headers.contains_key(RANGE) => None,
        Selection::Whole => Some(answer.status.as_u16()),
        Selection::Range(_) | Selection::Ranges(_) => Some(206),
        Selection::Unsatisfiable => Some(416),
    }
}
