//! What is stored for a URL, for people to look at: found as the edge finds it for a GET, and without a trace.
//!
//! Everything here may block, but not for long: a disk that does not answer is named in the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{ETAG, HOST, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, VARY};
use http::{Method, StatusCode};
use pingora::http::RequestHeader;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::forward;
use super::hit::{self, Variant};
use super::state::Shared;
use crate::admin::Unanswered;
use crate::http_cache::Timestamp;
use crate::invalidate::Verdict;
use crate::observe::rfc3339;
use crate::site::{self, Asked, Key, KeyText, Visitor};
use crate::store::{Disk, Head, Kind, Object, ObjectId, ObjectKey, Phase, Seen, Store, Variants};

/// Objects of one resource that are shown.
const SHOWN: usize = 100;

/// How long a disk may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Looks up what a GET with these fields (`Name: value`) would find. For a thread of a runtime that may block.
///
/// # Errors
/// It is no request that would be looked up.
pub fn lookup(shared: &Shared, url: &str, fields: &[String]) -> Result<Value, Unanswered> {
    let snapshot = shared.snapshot();
    let config = &snapshot.config;
    let url_parts = Url::parse(url).map_err(Unanswered::Bad)?;
    // Only a trusted proxy could have told this edge of https.
    let trusted = url_parts.https && !config.trusted_proxies.is_empty();
    let mut request = request(&url_parts, fields, trusted).map_err(Unanswered::Bad)?;
    forward::drop_fields(&mut request, site::nominated);
    forward::join_cookies(&mut request);
    let asked = Asked {
        method: &request.method,
        uri: &request.uri,
        target: request.raw_path(),
        headers: &request.headers,
        content: false,
        trusted,
        visitor: Visitor::nobody(),
    };
    let resolved = site::resolve(&asked, config, &snapshot.directory).map_err(|refusal| {
        let reason = refusal.reason.into_owned();
        if refusal.status == StatusCode::MISDIRECTED_REQUEST {
            Unanswered::NoSite(reason)
        } else {
            Unanswered::Bad(reason)
        }
    })?;
    let site = &config.sites[resolved.site];
    let route = resolved.route.map(|route| &*site.routes[route].name);
    let (key, dropped, rewritten) = (resolved.key, resolved.dropped, resolved.rewritten);
    let mut answer = json!({ "url": url, "site": &*site.name, "route": route });
    let Some((key, text)) = key else {
        answer["key"] = Value::Null;
        answer["reason"] = "the cache is off here: nothing is stored, and nothing looked up".into();
        answer["objects"] = json!([]);
        return Ok(answer);
    };
    forward::drop_fields(&mut request, |_| dropped);
    forward::rewrite_fields(&mut request, rewritten);
    let id = ObjectKey::primary(key.hash).id();
    answer["key"] = json!({ "text": site::describe(text.as_bytes()), "id": id.to_string() });
    Found::look(shared.store, &key, &text).show(shared.store, &request.headers, &mut answer);
    Ok(answer)
}

/// A URL, taken apart as a client does it.
struct Url<'a> {
    https: bool,
    authority: &'a str,
    target: String,
}

impl Url<'_> {
    fn parse(url: &str) -> Result<Url<'_>, String> {
        if let Some(odd) = url.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("{odd:?} has to be percent-encoded in the URL itself: as a parameter, it is so twice"));
        }
        if url.contains('#') {
            return Err("a fragment (`#…`) is for the browser, and never sent".to_owned());
        }
        let is_scheme = |scheme: &str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        let Some(scheme) = ["http://", "https://"].into_iter().find(|scheme| is_scheme(scheme)) else {
            return Err(format!("{url:?} is no URL: expected http://host/path or https://host/path"));
        };
        let https = scheme == "https://";
        let rest = &url[scheme.len()..];
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err("the URL names no host".to_owned());
        }
        // Whoever ends TLS passes the name on as the client sent it: without the default port.
        let authority = authority.strip_suffix(":443").filter(|_| https).unwrap_or(authority);
        // RFC 9112 §3.2.1: an empty path is sent as `/`.
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Url { https, authority, target: format!("{slash}{path}") })
    }
}

fn request(url: &Url<'_>, fields: &[String], trusted: bool) -> Result<RequestHeader, String> {
    let invalid = |e: Box<pingora::Error>| format!("the request is not valid: {e}");
    let mut request = RequestHeader::build(Method::GET, url.target.as_bytes(), None).map_err(invalid)?;
    for field in fields {
        let wrong = || format!("{field:?} is no header field: expected `Name: value`");
        let (name, value) = field.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.parse().map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value.trim_matches([' ', '\t'])).map_err(|_| wrong())?;
        request.append_header(name, value).map_err(invalid)?;
    }
    if !request.headers.contains_key(HOST) {
        request.insert_header(HOST, url.authority).map_err(invalid)?;
    }
    if trusted && !request.headers.contains_key(&FORWARDED_PROTO) {
        request.insert_header(&FORWARDED_PROTO, "https").map_err(invalid)?;
    }
    Ok(request)
}

/// All that is stored of a resource.
struct Found {
    primary: ObjectId,
    key: ObjectKey,
    entries: BTreeMap<ObjectId, Entry>,
    /// On disks, and not looked at.
    more: Vec<ObjectId>,
    /// Disks that could not be asked, and why.
    unread: Vec<Value>,
}

/// An object, wherever it is.
#[derive(Default)]
struct Entry {
    memory: Option<Arc<Object>>,
    disk: Option<(Arc<Disk>, Seen)>,
}

impl Entry {
    /// That of the tier which would answer.
    fn head(&self) -> Option<&Arc<Head>> {
        match (&self.memory, &self.disk) {
            (Some(object), _) => Some(&object.head),
            (None, Some((_, seen))) => seen.head.as_ref().ok(),
            (None, None) => None,
        }
    }
}

impl Found {
    fn look(store: &Store, key: &Key, text: &KeyText) -> Found {
        let (key, text) = (ObjectKey::primary(key.hash), text.as_bytes());
        let primary = key.id();
        let mut found = Found { primary, key, entries: BTreeMap::new(), more: Vec::new(), unread: Vec::new() };
        for (disk, variants) in on_disks(store, primary) {
            let variants = match variants {
                Ok(variants) => variants,
                Err(why) => {
                    found.unread.push(json!({ "disk": disk.path().to_string_lossy(), "reason": why }));
                    continue;
                }
            };
            found.more.extend(variants.more);
            for seen in variants.seen {
                // What shares half of a name need not be of this resource.
                if seen.head.as_ref().is_ok_and(|head| head.record.key != text) {
                    continue;
                }
                let id = seen.id;
                found.entries.entry(id).or_default().disk = Some((disk.clone(), seen));
            }
        }
        // Later: what has been taken into memory meanwhile is in both.
        for (id, object) in store.memory().iter() {
            if id.0[..8] == primary.0[..8] && object.head.record.key == text {
                found.entries.entry(id).or_default().memory = Some(object);
            }
        }
        found
    }

    fn show(&self, store: &Store, request: &HeaderMap, answer: &mut Value) {
        let all: BTreeSet<_> = self.entries.keys().chain(&self.more).map(|id| (*id != self.primary, *id)).collect();
        let shown = all.iter().take(SHOWN).filter_map(|(_, id)| Some((*id, self.entries.get(id)?)));
        let selected = self.selected(store, request);
        let now = Timestamp::from(SystemTime::now());
        let objects: Vec<_> = shown
            .map(|(id, entry)| {
                let mut object = describe(store, id, entry, now);
                let usable = entry.head().is_some_and(|head| self.is_usable(store, id, head));
                object["usable"] = usable.into();
                object["selected"] = (usable && selected == Some(id)).into();
                object
            })
            .collect();
        answer["more"] = all.len().saturating_sub(objects.len()).into();
        answer["objects"] = objects.into();
        answer["unread"] = self.unread.clone().into();
    }

    /// The first object of the resource, which says by what it varies.
    fn first(&self) -> Option<&Arc<Head>> {
        self.entries.get(&self.primary)?.head()
    }

    /// The one that a request with these fields would look at.
    fn selected(&self, store: &Store, request: &HeaderMap) -> Option<ObjectId> {
        let first = self.first().filter(|first| is_alive(store, first))?;
        Some(match hit::variant(first, request) {
            Variant::This => self.primary,
            Variant::Other(variance) => ObjectKey { variance, ..self.key }.id(),
        })
    }

    /// Whether a request could find it: it has not been invalidated, and is of the Vary that is in force.
    fn is_usable(&self, store: &Store, id: ObjectId, head: &Head) -> bool {
        let in_force = |first: &Arc<Head>| hit::belongs(head, head.variance, first) && is_alive(store, first);
        is_alive(store, head) && (id == self.primary || self.first().is_some_and(in_force))
    }
}

/// Whether no purge forbids its use.
fn is_alive(store: &Store, head: &Head) -> bool {
    store.verdict(head) != Verdict::Dead
}

/// What the disks have, which are asked at once.
fn on_disks(store: &Store, primary: ObjectId) -> Vec<(Arc<Disk>, Result<Variants, String>)> {
    if store.disks().is_empty() {
        return Vec::new();
    }
    let runtime = Handle::current();
    let asked: Vec<_> =
        store.disks().iter().map(|disk| (disk.clone(), runtime.spawn(on_disk(disk.clone(), primary)))).collect();
    let answered = asked.into_iter().map(|(disk, answer)| {
        let answer = runtime.block_on(answer);
        (disk, answer.unwrap_or_else(|e| Err(e.to_string())))
    });
    answered.collect()
}

async fn on_disk(disk: Arc<Disk>, primary: ObjectId) -> Result<Variants, String> {
    if disk.phase() == Phase::Away {
        return Err("its folder is not to be had".to_owned());
    }
    if let Some(cause) = disk.health.suspended(Kind::Read) {
        return Err(format!("reading is suspended ({})", cause.as_str()));
    }
    let asked = disk.clone();
    let looked = disk.pool.read(PATIENCE, move || asked.variants(primary, SHOWN)).await;
    match looked {
        Ok(Ok(variants)) => Ok(variants),
        Ok(Err(e)) => Err(e.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

fn describe(store: &Store, id: ObjectId, entry: &Entry, now: Timestamp) -> Value {
    let (memory, disk) = (entry.memory.as_ref(), entry.disk.as_ref());
    let tiers: Vec<_> = [memory.map(|_| "memory"), disk.map(|_| "disk")].into_iter().flatten().collect();
    let file = disk.and_then(|(_, seen)| seen.file.as_ref()).map(|file| file.to_string_lossy());
    let mut object = json!({ "id": id.to_string(), "tiers": tiers, "file": file });
    if let Some((_, Seen { head: Err(defect), .. })) = disk {
        object["defect"] = defect.as_str().into();
    }
    let Some(head) = entry.head() else { return object };
    let facts = store.verdict(head).apply(head.record.facts, now).unwrap_or(head.record.facts);
    let headers = &head.response.headers;
    let hits = match (memory, disk) {
        (Some(object), _) => object.hits(),
        (None, Some((disk, _))) => disk.peek(&id).map_or(0, |object| object.hits()),
        (None, None) => 0,
    };
    object["status"] = head.response.status.as_u16().into();
    object["stored_at"] = rfc3339(facts.received.into()).into();
    object["age"] = facts.age_seconds(now).into();
    object["ttl"] = facts.ttl(now).into();
    object["size"] = memory.map_or_else(|| disk.map_or(0, |(_, seen)| seen.len), |object| object.body.len()).into();
    object["hits"] = hits.into();
    object["vary"] = field(headers, &VARY).into();
    object["variant"] = head.variance.map(|variance| hex(&variance)).into();
    object["etag"] = field(headers, &ETAG).into();
    object["last_modified"] = field(headers, &LAST_MODIFIED).into();
    object
}

/// A field's lines as one.
fn field(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let text = |line: &HeaderValue| match str::from_utf8(line.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => line.as_bytes().escape_ascii().to_string(),
    };
    let lines: Vec<_> = headers.get_all(name).iter().map(text).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
