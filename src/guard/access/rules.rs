//! The rules of a site or route, ready to be asked.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;
use subtle::ConstantTimeEq;

use super::agents::Glob;
use super::lists::{List, Lists};
use super::networks::NetworkSet;
use super::referer;
use crate::config::model::{self, Networks, ValueMatch, identity_matches};
use crate::config::pattern::PathPattern;
use crate::guard::{Asked, Denied};
use crate::site::other_readings;

/// A typical User-Agent stays on the stack in lower case.
const INLINE_AGENT: usize = 256;

/// Who and what is let in.
pub struct Access {
    model: Arc<model::Access>,
    allow: Vec<Source>,
    deny: Vec<Source>,
    agents: Vec<Glob>,
    /// What Allow says in a 405.
    methods: String,
}

enum Source {
    These(NetworkSet),
    File(PathBuf, Arc<List>),
}

impl Access {
    /// # Errors
    /// `lists` are not those of the configuration that the rules are from.
    pub fn new(model: &Arc<model::Access>, lists: &Lists) -> Result<Access, String> {
        let mut methods = model.methods.clone();
        if let Some(get) = methods.iter().position(|method| method == "GET")
            && !methods.iter().any(|method| method == "HEAD")
        {
            methods.insert(get + 1, "HEAD".to_owned());
        }
        Ok(Access {
            allow: sources(&model.allow, lists)?,
            deny: sources(&model.deny, lists)?,
            agents: model.deny_user_agents.iter().map(|pattern| Glob::new(pattern)).collect(),
            methods: methods.join(", "),
            model: model.clone(),
        })
    }

    /// Checks a request: what tells most of the client first, what costs most last.
    ///
    /// # Errors
    /// Why it is not let in. Where the status is 405, the answer needs [`Access::methods`] in Allow.
    pub fn check(&self, asked: &Asked<'_>) -> Result<(), Denied> {
        let model = &*self.model;
        self.address(asked.visitor.address)?;
        self.place(asked)?;
        if !model.identities.is_empty() {
            let listed = |name: &String| model.identities.iter().any(|pattern| identity_matches(pattern, name));
            self.require(asked.visitor.identities.iter().any(listed), || match asked.visitor.identities.first() {
                Some(name) => format!("access.identities: {name:?} is none of them"),
                None => "access.identities: there is no client certificate".to_owned(),
            })?;
        }
        self.method(asked.method.as_str())?;
        for (name, value) in &model.headers {
            self.require(holds(asked.headers, name, value), || format!("access.headers: {name} is not as it must be"))?;
        }
        if let Some(pattern) = model.deny_paths.iter().find(|pattern| path_matches(pattern, asked.path)) {
            return self.deny(format!("access.deny_paths: {pattern}"));
        }
        self.agent(asked.headers)?;
        self.referer(asked.headers)
    }

    /// The methods that are let in, as Allow lists them (RFC 9110 §10.2.1); empty: all.
    pub fn methods(&self) -> &str {
        &self.methods
    }

    fn address(&self, address: IpAddr) -> Result<(), Denied> {
        if let Some(source) = self.deny.iter().find(|source| source.contains(address)) {
            return self.deny(match source {
                Source::These(_) => format!("access.deny: {address}"),
                Source::File(path, _) => format!("access.deny: {address} is in {}", path.display()),
            });
        }
        let allowed = self.allow.is_empty() || self.allow.iter().any(|source| source.contains(address));
        self.require(allowed, || format!("access.allow: {address} is not in it"))
    }

    fn place(&self, asked: &Asked<'_>) -> Result<(), Denied> {
        let (model, country, asn) = (&*self.model, asked.visitor.country, asked.visitor.asn);
        if !(model.deny_countries.is_empty() && model.allow_countries.is_empty()) {
            let listed = |list: &[[u8; 2]]| country.is_some_and(|country| list.contains(&country));
            let shown = || country.map_or("no country".to_owned(), |code| code.escape_ascii().to_string());
            self.require(!listed(&model.deny_countries), || format!("access.deny_countries: {}", shown()))?;
            let allowed = model.allow_countries.is_empty() || listed(&model.allow_countries);
            self.require(allowed, || format!("access.allow_countries: {} is not in it", shown()))?;
        }
        if !(model.deny_asns.is_empty() && model.allow_asns.is_empty()) {
            let listed = |list: &[u32]| asn.is_some_and(|asn| list.contains(&asn));
            let shown = || asn.map_or("no number".to_owned(), |asn| asn.to_string());
            self.require(!listed(&model.deny_asns), || format!("access.deny_asns: {}", shown()))?;
            let allowed = model.allow_asns.is_empty() || listed(&model.allow_asns);
            self.require(allowed, || format!("access.allow_asns: {} is not in it", shown()))?;
        }
        Ok(())
    }

    fn method(&self, method: &str) -> Result<(), Denied> {
        let methods = &self.model.methods;
        let listed = |wanted: &str| methods.iter().any(|listed| listed == wanted);
        if methods.is_empty() || listed(method) || method == "HEAD" && listed("GET") {
            return Ok(());
        }
        let reason = format!("access.methods: {method:?} is not in it");
        Err(Denied { status: StatusCode::METHOD_NOT_ALLOWED, reason })
    }

    fn agent(&self, headers: &HeaderMap) -> Result<(), Denied> {
        if self.agents.is_empty() {
            return Ok(());
        }
        let denying = |agent: &[u8]| {
            let lower: SmallVec<[u8; INLINE_AGENT]> = agent.iter().map(u8::to_ascii_lowercase).collect();
            self.agents.iter().find(|glob| glob.matches(&lower))
        };
        let mut lines = headers.get_all(USER_AGENT).iter().map(http::HeaderValue::as_bytes).peekable();
        let found = match lines.peek() {
            Some(_) => lines.find_map(denying),
            None => denying(b""),
        };
        match found {
            Some(glob) => self.deny(format!("access.deny_user_agents: {}", glob.as_str())),
            None => Ok(()),
        }
    }

    fn referer(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let Some(referers) = &self.model.referers else { return Ok(()) };
        let mut lines = headers.get_all(REFERER).iter().map(http::HeaderValue::as_bytes).peekable();
        let allowed = match lines.peek() {
            Some(_) => lines.all(|line| referer::allowed(referers, Some(line))),
            None => referer::allowed(referers, None),
        };
        self.require(allowed, || match headers.contains_key(REFERER) {
            true => "access.referers: another host".to_owned(),
            false => "access.referers: there is none".to_owned(),
        })
    }

    fn require(&self, holds: bool, reason: impl FnOnce() -> String) -> Result<(), Denied> {
        if holds { Ok(()) } else { self.deny(reason()) }
    }

    fn deny(&self, reason: String) -> Result<(), Denied> {
        Err(Denied { status: self.model.status, reason })
    }
}

impl Source {
    fn contains(&self, address: IpAddr) -> bool {
        match self {
            Source::These(set) => set.contains(address),
            Source::File(_, list) => list.with(|set| set.contains(address)),
        }
    }
}

/// What stands in the configuration itself is one set.
fn sources(networks: &[Networks], lists: &Lists) -> Result<Vec<Source>, String> {
    let these: NetworkSet = networks.iter().flat_map(these).collect();
    let mut sources = Vec::new();
    // An empty one too: an `allow` of nobody is not the same as none.
    if networks.iter().any(|networks| matches!(networks, Networks::These(_))) {
        sources.push(Source::These(these));
    }
    for networks in networks {
        if let Networks::File(path) = networks {
            let list = lists.get(path).ok_or_else(|| format!("{} has not been read", path.display()))?;
            sources.push(Source::File(path.clone(), list));
        }
    }
    Ok(sources)
}

fn these(networks: &Networks) -> impl Iterator<Item = ipnet::IpNet> {
    let networks = match networks {
        Networks::These(networks) => networks.as_slice(),
        Networks::File(_) => &[],
    };
    networks.iter().copied()
}

/// A field may come in several lines: one that equals is enough. The value may be a secret between the edge and a client, so
/// how long it takes tells nothing of it but its length.
fn holds(headers: &HeaderMap, name: &str, value: &ValueMatch) -> bool {
    match value {
        ValueMatch::Present => headers.contains_key(name),
        ValueMatch::Absent => !headers.contains_key(name),
        ValueMatch::Equals(value) => {
            headers.get_all(name).iter().any(|line| line.as_bytes().ct_eq(value.as_bytes()).into())
        }
    }
}

/// What is denied is denied too where an origin could read it out of the path.
fn path_matches(pattern: &PathPattern, path: &str) -> bool {
    pattern.matches(path) || other_readings(path).any(|read| pattern.matches(&read))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
