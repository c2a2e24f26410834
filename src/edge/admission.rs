//! From the origin's answer to the store: whether it may be stored, as what, and what a validation makes of what is there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{AGE, DATE, HeaderMap, SET_COOKIE, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use log::{debug, warn};
use pingora::http::ResponseHeader;
use pingora_cache::{CacheMeta, NoCacheReason, RespCacheable};
use pingora_proxy::Session;

use super::caching::of_users;
use super::context::Context;
use super::state::Shared;
use crate::http_cache::{self, NotStored, RequestFacts, Stored, Tags, Tiers, Timestamp};
use crate::store::{ObjectKey, Record, Rejection, meta_of};

/// Whether the origin's response may be stored, and as what.
pub fn on_response(shared: &Shared, session: &Session, response: &ResponseHeader, ctx: &mut Context) -> RespCacheable {
    if ctx.upstream.by_head && ctx.cache.not_modified.is_none() {
        head_answered(shared, session, response, ctx);
        ctx.cache.not_stored = Some(NotStored::Head.as_str());
        return RespCacheable::Uncacheable(NoCacheReason::Deferred);
    }
    // What freshens an object is that object still.
    let id = match &ctx.cache.not_modified {
        Some(_) => session.cache.maybe_cache_meta().and_then(|m| Some(m.extensions().get::<Record>()?.id)),
        None => None,
    };
    let now = Timestamp::from(SystemTime::now());
    let asked = ctx.upstream.sent().unwrap_or(now);
    let tiers = ctx.request.as_ref().and_then(|r| r.cache_policy()).map(|policy| policy.tiers).unwrap_or_default();
    let identity = Identity { id: id.unwrap_or(0), began: ctx.cache.began, asked, tiers };
    let verdict = match ctx.cache.not_modified.take() {
        Some(update) => freshened(shared, session, ctx, &update),
        None => judged(shared, session, ctx, response),
    };
    let Some(request) = ctx.request.as_ref() else {
        return RespCacheable::Uncacheable(NoCacheReason::InternalError);
    };
    match verdict {
        Ok((stored, response)) => {
            ctx.cache.stored = true;
            if let Some((key, _)) = &request.key {
                shared.store.uncacheable().clear(&key.hash);
            }
            ctx.cache.ttl = Some(stored.facts.ttl(now));
            let key = request.key.as_ref().map(|(_, text)| text.as_bytes()).unwrap_or_default();
            RespCacheable::Cacheable(meta(key, &stored, response, identity))
        }
        Err(why) => {
            debug!("not stored: {}", why.word());
            ctx.cache.not_stored = Some(why.word());
            if let Some((key, _)) = &request.key
                && !response.status.is_server_error()
            {
                // Another client's answer might well be for all.
                let users = matches!(why, Verdict::Rule(NotStored::Authorization)).then(|| of_users(key.hash));
                let marked = users.or_else(|| (!why.is_the_requests()).then_some(key.hash));
                if let Some(marked) = marked {
                    shared.store.uncacheable().mark(&marked, shared.uptime());
                }
            }
            RespCacheable::Uncacheable(why.reason())
        }
    }
}

/// Why a response is not stored.
enum Verdict {
    Rule(NotStored),
    TooLarge,
    /// The fills in progress hold as much memory as they may.
    Fills,
    /// It has not been asked for often enough.
    Seldom,
    OtherResource,
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Verdict::Rule(rule) => rule.as_str(),
            Verdict::TooLarge => "too-large",
            Verdict::Fills => "fills",
            Verdict::Seldom => "seldom",
            Verdict::OtherResource => "other-validator",
        }
    }

    /// Another request for the same might well have its response stored.
    fn is_the_requests(&self) -> bool {
        matches!(
            self,
            Verdict::Rule(NotStored::RequestNoStore | NotStored::Authorization) | Verdict::Fills | Verdict::Seldom
        )
    }

    fn reason(&self) -> NoCacheReason {
        match self {
            // Nobody is to wait for room.
            Verdict::Fills => NoCacheReason::OriginNotCache,
            // It is likely for its user alone: those who wait all go on.
            Verdict::Rule(NotStored::Authorization) => NoCacheReason::OriginNotCache,
            // The next of those who wait tries.
            Verdict::Seldom => NoCacheReason::Deferred,
            _ if self.is_the_requests() => NoCacheReason::Deferred,
            Verdict::Rule(_) | Verdict::OtherResource => NoCacheReason::OriginNotCache,
            Verdict::TooLarge => NoCacheReason::ResponseTooLarge,
        }
    }
}

/// A response in full.
fn judged(
    shared: &Shared,
    session: &Session,
    ctx: &mut Context,
    response: &ResponseHeader,
) -> Result<(Stored, ResponseHeader), Verdict> {
    let length = http_cache::content_length(&response.headers);
    let stored = match judge(session, ctx, response.status, &response.headers) {
        Err(NotStored::Tags) => {
            unpurgeable(shared, ctx, &response.headers);
            return Err(Verdict::Rule(NotStored::Tags));
        }
        stored => stored.map_err(Verdict::Rule)?,
    };
    let request = ctx.request.as_ref();
    if let Some((key, policy)) = request.and_then(|r| Some((&r.key.as_ref()?.0, r.cache_policy()?))) {
        let object = ObjectKey::of(session.cache.cache_key());
        if length.is_some_and(|length| !shared.store.takes(length, &object, policy.tiers)) {
            shared.store.reject(Rejection::TooLarge);
            return Err(Verdict::TooLarge);
        }
        // What is stored has been asked for often enough.
        if session.cache.maybe_cache_meta().is_none()
            && !shared.store.is_asked_often(&key.hash, policy, shared.millis(ctx.started))
        {
            shared.store.reject(Rejection::Seldom);
            return Err(Verdict::Seldom);
        }
    }
    if !shared.store.has_room() {
        shared.store.reject(Rejection::Fills);
        return Err(Verdict::Fills);
    }
    for name in &stored.strip {
        for value in response.headers.get_all(name) {
            ctx.cache.unshared.push((name.clone(), value.clone()));
        }
    }
    let shareable = shareable(&stored, response, stored.facts.received);
    Ok((stored, shareable))
}

/// A response has tags by which it could not be purged: the operator is told, though not of each.
fn unpurgeable(shared: &Shared, ctx: &Context, fields: &HeaderMap) {
    /// Seconds between two lines in the log.
    const PAUSE: u64 = 10;
    /// When the last was written, in seconds since the process began, and one more.
    static TOLD: AtomicU64 = AtomicU64::new(0);
    shared.store.reject(Rejection::Tags);
    let Some(request) = &ctx.request else { return };
    let Some(Err(why)) = request.cache_policy().map(|policy| Tags::read(fields, &policy.tags)) else { return };
    let now = shared.uptime() + 1;
    let told = TOLD.load(Ordering::Relaxed);
    let due = told == 0 || now >= told + PAUSE;
    if due && TOLD.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        warn!("{}: not stored, since it could not be purged: {why}", request.authority);
    }
}

/// What of a response is stored.
pub fn shareable(stored: &Stored, response: &ResponseHeader, received: Timestamp) -> ResponseHeader {
    let mut shareable = response.clone();
    shareable.remove_header(&TRANSFER_ENCODING);
    for name in &stored.strip {
        shareable.remove_header(name);
    }
    date(&mut shareable, received);
    shareable
}

/// RFC 9110 §6.6.1: a response without Date gets the time of its arrival for one.
fn date(response: &mut ResponseHeader, received: Timestamp) {
    if !response.headers.contains_key(DATE) {
        let _ = response.insert_header(DATE, http_cache::http_date(received));
    }
}

/// A HEAD about something stored has been answered (RFC 9111 §4.3.5): what is stored takes the answer's fields over, or
/// is stale from now on if they show that it is no longer what a GET would get.
fn head_answered(shared: &Shared, session: &Session, response: &ResponseHeader, ctx: &Context) {
    let Some(old) = session.cache.maybe_cache_meta() else { return };
    let Some(record) = old.extensions().get::<Record>() else { return };
    let (status, now) = (old.response_header().status, Timestamp::from(SystemTime::now()));
    if response.status != StatusCode::OK || status != StatusCode::OK {
        return;
    }
    let updated = match http_cache::merge_head(old.headers(), &response.headers) {
        Some(merged) => judge(session, ctx, status, &merged).ok().and_then(|stored| {
            let tags = updated_tags(ctx, Some(record), old.headers(), &response.headers, stored.tags.clone());
            let response = built(status, &merged, &stored)?;
            let mut meta = meta_of(&stored.facts, old.provenance(), response);
            meta.extensions_mut().insert(Record {
                facts: stored.facts,
                began: ctx.cache.began,
                tags,
                ..record.clone()
            });
            Some(meta)
        }),
        None => {
            let mut meta = meta_of(&record.facts.expired_at(now), old.provenance(), old.response_header_copy());
            meta.extensions_mut().insert(Record { facts: record.facts.expired_at(now), ..record.clone() });
            Some(meta)
        }
    };
    if let Some(mut updated) = updated {
        if let Some(variance) = old.variance() {
            updated.set_variance(variance);
        }
        tokio::spawn(shared.store.freshen(&ObjectKey::of(session.cache.cache_key()), &updated));
    }
}

/// A stored response that a 304 has confirmed, with the fields of the 304 (RFC 9111 §4.3.4).
fn freshened(
    shared: &Shared,
    session: &Session,
    ctx: &mut Context,
    update: &ResponseHeader,
) -> Result<(Stored, ResponseHeader), Verdict> {
    let Some(old) = session.cache.maybe_cache_meta() else { return Err(Verdict::OtherResource) };
    let record = old.extensions().get::<Record>();
    let facts = record.map(|record| record.facts);
    let old = old.response_header();
    if !http_cache::update_applies(&old.headers, &update.headers) {
        let mut fields = old.headers.clone();
        if let Some(facts) = facts {
            fields.insert(AGE, facts.age_seconds(SystemTime::now().into()).into());
        }
        // The next request asks without a condition, or this would go on for ever.
        tokio::spawn(shared.store.remove(&ObjectKey::of(session.cache.cache_key())));
        ctx.cache.confirmed = Some(Box::new(fields));
        return Err(Verdict::OtherResource);
    }
    let merged = http_cache::merge_304(&old.headers, &update.headers);
    let verdict = judge(session, ctx, old.status, &merged);
    let strip = verdict.as_ref().map(|stored| stored.strip.as_slice()).unwrap_or_default();
    for (name, value) in &update.headers {
        if name == SET_COOKIE || strip.contains(name) {
            ctx.cache.unshared.push((name.clone(), value.clone()));
        }
    }
    match verdict {
        Ok(mut stored) => {
            stored.tags = updated_tags(ctx, record, &old.headers, &update.headers, stored.tags);
            let response = built(old.status, &merged, &stored).ok_or(Verdict::OtherResource)?;
            Ok((stored, response))
        }
        Err(why) => {
            ctx.cache.confirmed = Some(Box::new(merged));
            Err(Verdict::Rule(why))
        }
    }
}

/// The tags of a stored response after an update: those of the fields as they are now, unless the stored response is
/// without the fields that its own came in. Those are not lost with them.
fn updated_tags(ctx: &Context, record: Option<&Record>, old: &HeaderMap, update: &HeaderMap, now: Tags) -> Tags {
    let policy = ctx.request.as_ref().and_then(|request| request.cache_policy());
    let (Some(record), Some(policy)) = (record, policy) else { return now };
    if policy.tags.iter().chain([&http_cache::CACHE_GROUPS]).any(|name| old.contains_key(name)) {
        return now;
    }
    record.tags.updated(update, &policy.tags).unwrap_or(now)
}

fn built(status: StatusCode, fields: &HeaderMap, stored: &Stored) -> Option<ResponseHeader> {
    let mut response = ResponseHeader::build_no_case(status, Some(fields.len() + 1)).ok()?;
    for (name, value) in fields.iter().filter(|(name, _)| !stored.strip.contains(name)) {
        let _ = response.append_header(name.clone(), value.clone());
    }
    date(&mut response, stored.facts.received);
    Some(response)
}

fn judge(session: &Session, ctx: &Context, status: StatusCode, headers: &HeaderMap) -> Result<Stored, NotStored> {
    let (Some(request), header) = (ctx.request.as_ref(), session.req_header()) else {
        return Err(NotStored::Method);
    };
    let Some(policy) = request.cache_policy() else { return Err(NotStored::Method) };
    let received = Timestamp::from(SystemTime::now());
    // The origin was asked by GET even for a HEAD, so that the answer can be stored.
    let facts =
        RequestFacts::new(&Method::GET, &header.headers, &request.directives, ctx.upstream.sent().unwrap_or(received));
    http_cache::storability(&facts, status, headers, policy, received)
}

/// Which object it is, and of when (see [`Record`]).
pub struct Identity {
    pub id: u64,
    pub began: u64,
    pub asked: Timestamp,
    pub tiers: Tiers,
}

/// `key`: its text.
pub fn meta(key: &[u8], stored: &Stored, response: ResponseHeader, of: Identity) -> CacheMeta {
    let Identity { id, began, asked, tiers } = of;
    let mut meta = meta_of(&stored.facts, SystemTime::now(), response);
    let key = Bytes::copy_from_slice(key);
    meta.extensions_mut().insert(Record {
        facts: stored.facts,
        key,
        id,
        began,
        asked,
        tags: stored.tags.clone(),
        tiers,
    });
    meta
}
