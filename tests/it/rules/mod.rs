//! The rules of HTTP caching, point by point, through the running binary: what a shared cache must do, must not do, and
//! may do by default. `rule_NN_…` is a test of point NN; each point has one at least. Tests elsewhere go further into
//! some of them, and are named where they do.
//!
//! | Point | Subject | File |
//! |---|---|---|
//! | 1–5, 8 | lifetimes, Cache-Control as it is written, Age, Expires, dates, heuristics | `freshness` |
//! | 6, 7, 10 | directives of responses, stale responses, status codes | `responses` |
//! | 9, 19, 20 | methods, HEAD, invalidation | `methods` |
//! | 11, 12 | directives of requests, Pragma | `requests` |
//! | 13, 14 | Vary | `vary` |
//! | 15, 16 | conditional requests | `conditions` |
//! | 17, 18, 25 | stored fields, fields of a 304, interim responses | `fields` |
//! | 21 | ranges | `ranges` |
//! | 22, 23 | who may share: Authorization, cookies, the query; Date and Expires | `sharing` |
//! | 24 | targeted fields | `targeted` |
//! | 26 | Cache-Status | `cache_status` |
//! | safety | broken framing, hosts, fields that are in no key | `safety` |
//!
//! A test plays scenes on one [`Stage`]: each scene has a target of its own, and the origin's replies for it in order.
//! A table is gone through to its end, and fails with all rows that are wrong.

mod cache_status;
mod conditions;
mod fields;
mod freshness;
mod methods;
mod ranges;
mod requests;
mod responses;
mod safety;
mod sharing;
mod targeted;
mod vary;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::harness::{Ask, Edge, Origin, Reply, Request, Response};
use crate::over::{BOTH, Client, Over};

/// An origin that plays a script for each target, and an edge before it.
struct Stage {
    edge: Edge,
    /// Runs for as long as this is here.
    _origin: Origin,
    scripts: Scripts,
    scenes: AtomicUsize,
}

type Scripts = Arc<Mutex<HashMap<String, Script>>>;

#[derive(Default)]
struct Script {
    replies: VecDeque<Reply>,
    seen: Vec<Request>,
}

/// One target: what the origin says of it, and a client that asks for it over a connection of its own.
struct Scene<'a> {
    stage: &'a Stage,
    target: String,
    client: Client,
}

impl Stage {
    async fn new() -> Stage {
        Stage::with("").await
    }

    /// With further YAML of the site.
    async fn with(site: &str) -> Stage {
        let (origin, scripts) = Stage::origin().await;
        let edge = Edge::before(&origin, site).await;
        Stage { edge, _origin: origin, scripts, scenes: AtomicUsize::new(0) }
    }

    async fn origin() -> (Origin, Scripts) {
        let scripts = Scripts::default();
        let played = scripts.clone();
        let origin = Origin::start(move |request| {
            let mut scripts = played.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(script) = scripts.get_mut(&request.target) else {
                return Reply::new(404).cache_control("no-store");
            };
            script.seen.push(request.clone());
            match script.replies.len() {
                0 => Reply::new(404).cache_control("no-store"),
                // The last one is for all further requests.
                1 => script.replies[0].clone(),
                _ => script.replies.pop_front().unwrap_or_else(|| Reply::new(404)),
            }
        })
        .await;
        (origin, scripts)
    }

    /// A new target, for which the origin says these in turn, and the last again and again.
    async fn scene(&self, over: Over, replies: impl IntoIterator<Item = Reply>) -> Scene<'_> {
        let serial = self.scenes.fetch_add(1, Ordering::Relaxed);
        self.scene_at(&format!("/{serial}"), over, replies).await
    }

    /// The same at this target.
    async fn scene_at(&self, target: &str, over: Over, replies: impl IntoIterator<Item = Reply>) -> Scene<'_> {
        self.script(target, replies);
        Scene { stage: self, target: target.to_owned(), client: over.connect(&self.edge).await }
    }

    fn script(&self, target: &str, replies: impl IntoIterator<Item = Reply>) {
        let script = Script { replies: replies.into_iter().collect(), seen: Vec::new() };
        self.scripts().insert(target.to_owned(), script);
    }

    /// What the origin was asked for this target.
    fn seen(&self, target: &str) -> Vec<Request> {
        self.scripts().get(target).map(|script| script.seen.clone()).unwrap_or_default()
    }

    fn scripts(&self) -> std::sync::MutexGuard<'_, HashMap<String, Script>> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plays each row over both protocols: the origin says something, and whether that answers a second GET is what the
    /// row says.
    async fn plays(&self, rows: impl IntoIterator<Item = Row>) {
        let mut wrong = Vec::new();
        for row in rows {
            for over in BOTH {
                let mut scene = self.scene(over, [row.first.clone().header("X-Answer", "first"), later()]).await;
                let (first, second) = (scene.get().await, scene.get().await);
                let answer = second.header("X-Answer").unwrap_or("none");
                let reused = second.is_hit() && answer == "first" && scene.seen().len() == 1;
                let asked = !second.is_hit() && answer == "later" && scene.seen().len() == 2;
                if first.header("X-Answer") != Some("first") || !(if row.reused { reused } else { asked }) {
                    let (one, two) = (first.cache_status(), second.cache_status());
                    let wanted = if row.reused { "reused" } else { "not reused" };
                    wrong.push(format!(
                        "{over:?}: {} is to be {wanted}: {} {one} / {} {two}",
                        row.what, first.status, second.status
                    ));
                }
            }
        }
        assert_none(&wrong);
    }
}

impl Scene<'_> {
    async fn get(&mut self) -> Response {
        self.send("GET", &[]).await
    }

    async fn get_with(&mut self, fields: &[(&str, &str)]) -> Response {
        self.send("GET", fields).await
    }

    async fn send(&mut self, method: &str, fields: &[(&str, &str)]) -> Response {
        let ask = with(Ask::new(method, &self.target), fields);
        self.client.ask(&ask).await
    }

    /// What the origin was asked.
    fn seen(&self) -> Vec<Request> {
        self.stage.seen(&self.target)
    }
}

/// What the origin says, and whether it answers the next who asks.
struct Row {
    what: String,
    first: Reply,
    reused: bool,
}

/// A row of a 200 with these fields.
fn row(fields: &[(&str, &str)], reused: bool) -> Row {
    let first = fields.iter().fold(Reply::ok("body"), |reply, (name, value)| reply.header(name, value));
    Row { what: format!("{fields:?}"), first, reused }
}

/// A row of a 200 with this Cache-Control.
fn control(value: &str, reused: bool) -> Row {
    row(&[("Cache-Control", value)], reused)
}

/// What the origin says once the first answer is used up; never stored.
fn later() -> Reply {
    Reply::ok("later").cache_control("no-store").header("X-Answer", "later")
}

/// A response that is fresh for a minute.
fn fresh(body: &'static str) -> Reply {
    Reply::ok(body).cache_control("max-age=60")
}

/// A response that has been stale for half a minute, after a minute of freshness, and that has an ETag; `directives` are
/// further ones.
fn stale(body: &'static str, directives: &str) -> Reply {
    let reply = Reply::ok(body).cache_control(&format!("max-age=60{directives}"));
    reply.header("Age", "90").header("ETag", "\"v1\"")
}

/// Whether a response says that it has been stale for half a minute. A test may take a second or two.
fn is_half_a_minute_over(response: &Response) -> bool {
    ttl(response).is_some_and(|ttl| (-33..=-30).contains(&ttl))
        && response.age().is_some_and(|age| (90..=92).contains(&age))
}

fn with(ask: Ask, fields: &[(&str, &str)]) -> Ask {
    fields.iter().fold(ask, |ask, (name, value)| ask.header(name, value))
}

/// Fails with all that is wrong.
#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The value of a parameter of our member of Cache-Status; an empty one for a flag.
fn parameter<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let member = response.cache_status().rsplit(", ").next()?;
    let mut parameters = member.split(';').skip(1).map(|p| p.trim().split_once('=').unwrap_or((p.trim(), "")));
    parameters.find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// The remaining lifetime that Cache-Status states.
fn ttl(response: &Response) -> Option<i64> {
    parameter(response, "ttl")?.parse().ok()
}
