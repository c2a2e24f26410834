//! What is explained, before it is written as text or JSON. `docs/explain.md` describes the JSON.

use serde::Serialize;

/// What the edge would do with a request.
#[derive(Serialize)]
pub struct Explanation {
    pub request: Request,
    pub client: Client,
    /// Fields of the request that reach no origin.
    pub dropped: Vec<Dropped>,
    /// Fields of the request that reach it otherwise than they came, as the settings in force say.
    pub rewritten: Vec<Rewritten>,
    /// Set where the request goes no further: instead of all that follows, unless a guard of its site says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    #[serde(flatten)]
    pub governed: Option<Governed>,
}

#[derive(Serialize)]
pub struct Request {
    pub method: String,
    /// As it was sent.
    pub host: Option<String>,
    /// As it was sent.
    pub target: String,
}

#[derive(Serialize)]
pub struct Client {
    /// Who asks, as a trusted proxy says or as the connection has it.
    pub address: Option<String>,
    /// A trusted proxy sends the request.
    pub trusted: bool,
    /// It comes by TLS, as a trusted proxy says or as the connection has it.
    pub secure: bool,
    /// As far as the databases know, or the command line says.
    pub country: Option<String>,
    pub asn: Option<u32>,
    /// The names in its certificate.
    pub identities: Vec<String>,
}

#[derive(Serialize)]
pub struct Dropped {
    pub field: String,
    pub why: &'static str,
}

#[derive(Serialize)]
pub struct Rewritten {
    pub field: String,
    /// `None`: it goes.
    pub value: Option<String>,
    pub why: &'static str,
}

/// The edge's own answer.
#[derive(Serialize)]
pub struct Refused {
    pub status: u16,
    /// What the client is told.
    pub text: String,
    /// What the access log is told.
    pub reason: String,
}

/// What governs a request, and what follows from that.
#[derive(Serialize)]
pub struct Governed {
    pub site: Site,
    /// `None`: the site's own settings.
    pub route: Option<Route>,
    /// The routes before it, or all of them.
    pub passed_over: Vec<PassedOver>,
    /// How many of those are not listed.
    pub passed_over_omitted: usize,
    /// Where the edge answers itself, by purging: who may have it do so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purge: Option<String>,
    /// Those in force, in the order in which they stand at the door, up to the one that refuses.
    pub guards: Vec<Guard>,
    pub origin: Origin,
    /// `None`: nothing is looked up.
    pub key: Option<Key>,
    pub cache: Cache,
    pub settings: Vec<Setting>,
    /// Where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
}

/// Where something stands in the file.
#[derive(Clone, Serialize)]
pub struct At {
    pub file: String,
    pub line: usize,
    pub column: usize,
    /// `sites[0].routes[1].cache.ttl`
    pub path: String,
}

#[derive(Serialize)]
pub struct Site {
    pub name: String,
    pub at: Option<At>,
    /// The pattern that the request's host matched.
    pub host: String,
    pub host_at: Option<At>,
}

#[derive(Serialize)]
pub struct Route {
    pub name: String,
    pub at: Option<At>,
    /// What the request meets, condition by condition.
    pub conditions: Vec<String>,
}

#[derive(Serialize)]
pub struct PassedOver {
    pub name: String,
    pub at: Option<At>,
    pub why: String,
}

/// A guard that is in force, and what it makes of the request.
#[derive(Serialize)]
pub struct Guard {
    /// Its key in the file: `rate_limit`.
    pub guard: &'static str,
    /// Of a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `passes`, `refuses`, or `counts` where that depends on other requests.
    pub verdict: &'static str,
    pub why: String,
    pub at: Option<At>,
}

#[derive(Serialize)]
pub struct Origin {
    pub name: String,
    pub at: Option<At>,
    /// Where the site or the route names it.
    pub named_at: Option<At>,
    /// What it is asked for.
    pub target: String,
    /// The Host that it is asked by: `client`, `server` or a name.
    pub host: String,
}

#[derive(Serialize)]
pub struct Key {
    pub text: String,
    /// Hexadecimal.
    pub hash: String,
}

#[derive(Serialize)]
pub struct Cache {
    /// The request may be answered from the store, and its response be stored.
    pub used: bool,
    /// Why not.
    pub bypass: Option<Verdict>,
    /// What of the request bears on it.
    pub notes: Vec<Note>,
}

/// A rule's verdict: a stable word, and a sentence.
#[derive(Serialize)]
pub struct Verdict {
    pub word: &'static str,
    pub why: String,
}

#[derive(Serialize)]
pub struct Note {
    pub what: String,
    pub effect: String,
}

#[derive(Serialize)]
pub struct Setting {
    pub name: String,
    pub value: String,
    /// `None`: the default.
    pub at: Option<At>,
}

/// What would become of the origin's response.
#[derive(Serialize)]
pub struct Response {
    pub status: u16,
    pub stored: bool,
    /// It is, but not for the request's own method: for later GETs.
    pub for_later_gets: bool,
    /// Why it is not stored.
    pub not_stored: Option<Verdict>,
    /// The field whose directives govern.
    pub governed_by: String,
    /// Where it is stored.
    pub facts: Option<Facts>,
    /// Fields that are not stored.
    pub stripped: Vec<Dropped>,
    /// The targets whose stored responses become invalid.
    pub invalidates: Vec<String>,
    /// The member of Cache-Status that the client gets.
    pub cache_status: String,
    /// The same request once more; `None`: the origin is asked again.
    pub again: Option<Again>,
}

/// What is remembered of a stored response. Times in milliseconds.
#[derive(Serialize)]
pub struct Facts {
    pub lifetime_ms: u64,
    pub source: Verdict,
    pub initial_age_ms: i64,
    /// From its arrival; negative: it is stale on arrival.
    pub fresh_for_ms: i64,
    /// An HTTP-date.
    pub fresh_until: String,
    pub stale_while_revalidate_ms: i64,
    pub stale_if_error_ms: i64,
    /// Never served stale.
    pub must_revalidate: bool,
    /// Never served without a validation.
    pub no_cache: bool,
    pub immutable: bool,
    /// The request fields that tell its variants apart.
    pub varies_on: Vec<String>,
    /// Which variant this is, in hexadecimal.
    pub variant: Option<String>,
}

/// What the same request gets later.
#[derive(Serialize)]
pub struct Again {
    pub after_seconds: u32,
    /// `fresh`, `stale`, `stale-while-revalidate`, `revalidate` or `only-if-cached`, and why.
    pub reuse: Verdict,
    /// Of the answer from the store; `None`: it depends on the origin, or on a length that is not known.
    pub status: Option<u16>,
    pub age_seconds: u64,
    /// Seconds of freshness left; negative: stale for so long.
    pub ttl_seconds: i64,
    /// The conditions that the origin is asked with.
    pub validators: Vec<String>,
    /// Should the origin fail, this is served all the same.
    pub stale_if_error: bool,
    /// The member of Cache-Status, as far as it does not depend on the origin.
    pub cache_status: String,
}

/// The explanation as JSON.
pub fn json(explanation: &Explanation) -> String {
    // Nothing in it can fail to be written: no map has a key that is no text.
    serde_json::to_string_pretty(explanation).map_or_else(|e| format!("{{\"error\": \"{e}\"}}\n"), |json| json + "\n")
}
