//! The format `foreland`. docs/signed-urls.md has it byte by byte, for those who sign.
//!
//! A token is claims and a signature, of characters that need no encoding in a query, a path's segment or a cookie:
//! `exp=1767290400~nbf=1767286800~ip=192.0.2.0_24~m=POST~p=2~q=a,b~id=x~mac=…`. Claims stand in this order; `exp` and `mac`
//! are always there. What the token says is signed with what the request says: nothing of either can be changed.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use ipnet::IpNet;
use smallvec::SmallVec;

use super::keyring::{Algorithm, Keyring};
use super::sign::{CannotSign, Part, Signed, Wish, single};
use super::text::{may_climb, plain, seconds};
use super::{Grant, Places, Presented, Refused, Verifier, find, take};
use crate::config::model::Secret;
use crate::site::{normalise_path, normalise_query};

/// The first line of what is signed. Changed with every change of the rest.
const VERSION: &[u8] = b"foreland-1\n";
/// Bytes of HMAC-SHA256 in a token. Half of them are as safe: a forger cannot try a guess but by asking the edge, and 2^128
/// guesses are out of reach; what is saved counts where each segment's URL has the token.
const MAC: usize = 16;
/// Characters of the signature that tell tokens apart, 48 bits.
const SHOWN: usize = 8;
/// Longest token.
const LONGEST: usize = 1024;
/// Longest id, and how many query parameters can be named.
const LONGEST_ID: usize = 64;
const MOST_PARAMETERS: usize = 16;
/// Stands for the whole query.
const ALL: &str = "*";

/// The keys of one `foreland` key.
pub struct Foreland {
    keys: Keyring,
    places: Places,
    /// Seconds.
    skew: u64,
}

impl Foreland {
    /// `skew` is in seconds.
    pub fn new(secrets: &[Secret], parameter: &str, skew: u64) -> Foreland {
        let names = || vec![parameter.to_owned()];
        let places = Places {
            parameters: names(),
            cookies: names(),
            fields: Vec::new(),
            path_prefix: Some(format!("{parameter}=")),
        };
        Foreland { keys: Keyring::new(Algorithm::Sha256, secrets), places, skew }
    }

    fn check(&self, token: &str, request: &Presented<'_>, now: u64) -> Result<Grant, Refused> {
        let token = plain(token).ok_or(Refused::Malformed("the token is not text"))?;
        let claims = Claims::read(&token).map_err(Refused::Malformed)?;
        let path = normalise_path(request.path);
        let path = match claims.depth {
            None => &*path,
            Some(depth) => folder(&path, depth)?,
        };
        let subject = Subject { authority: request.authority, path, query: request.query };
        let mac =
            URL_SAFE_NO_PAD.decode(claims.mac).map_err(|_| Refused::Malformed("the signature is not base64url"))?;
        let lines = subject.lines(claims.parameters, &self.places)?;
        if !self.keys.verifies(&text(claims.signed, &subject, &lines), &mac, MAC) {
            return Err(Refused::Mismatch);
        }
        // What follows is said of tokens alone that have been given out: it tells a forger nothing.
        claims.allow(request, now, self.skew)?;
        let id = claims.id.or_else(|| claims.mac.get(..SHOWN)).unwrap_or_default();
        Ok(Grant { id: id.to_owned(), expires: Some(claims.expires) })
    }
}

impl Verifier for Foreland {
    fn places(&self) -> &Places {
        &self.places
    }

    fn verify(&self, request: &Presented<'_>, now: u64) -> Result<Grant, Refused> {
        find::first_that_holds(request, &self.places, |token| self.check(token, request, now))
    }
}

/// Signs with the first secret.
///
/// # Errors
/// What the wish lacks, or what a token cannot say.
pub fn sign(secrets: &[Secret], parameter: &str, wish: &Wish<'_>) -> Result<Signed, CannotSign> {
    let claims = claims(wish, parameter)?;
    let key = Foreland::new(secrets, parameter, 0);
    let path = normalise_path(wish.path);
    let path = match wish.prefix {
        None => &*path,
        Some(prefix) => {
            let folder = folder(&path, depth(prefix)).map_err(|_| {
                CannotSign::Impossible("a server could read the path as one outside of the prefix".to_owned())
            })?;
            if folder != prefix {
                return Err(CannotSign::Value(Part::Prefix, "a path in normal form"));
            }
            folder
        }
    };
    let subject = Subject { authority: wish.authority, path, query: wish.query };
    let parameters = (!wish.parameters.is_empty()).then(|| wish.parameters.join(","));
    let lines = subject
        .lines(parameters.as_deref(), &key.places)
        .map_err(|_| CannotSign::Impossible("the URL has a line end in it".to_owned()))?;
    let tag = key.keys.sign(&text(&claims, &subject, &lines));
    let mac = URL_SAFE_NO_PAD.encode(tag.get(..MAC).unwrap_or_default());
    Ok(wish.placed(parameter, &format!("{claims}~mac={mac}")))
}

/// What a token says.
struct Claims<'a> {
    /// The token up to its signature.
    signed: &'a str,
    expires: u64,
    not_before: Option<u64>,
    client: Option<IpNet>,
    /// `None`: GET and HEAD.
    methods: Option<&'a str>,
    /// How many segments of the path the token is for, with all below; `None`: for this path alone.
    depth: Option<usize>,
    parameters: Option<&'a str>,
    id: Option<&'a str>,
    mac: &'a str,
}

impl<'a> Claims<'a> {
    /// # Errors
    /// What is wrong with the token. Nothing in it is ignored.
    fn read(token: &'a str) -> Result<Claims<'a>, &'static str> {
        if token.len() > LONGEST {
            return Err("the token is too long");
        }
        let (signed, mac) = token.rsplit_once("~mac=").ok_or("the token has no signature")?;
        let mut rest = signed.split('~').peekable();
        let mut next = |name: &str| {
            let claim = rest.peek().and_then(|claim| claim.strip_prefix(name)?.strip_prefix('='));
            claim.inspect(|_| {
                rest.next();
            })
        };
        let number = |claim: &str| seconds(claim).ok_or("a time of the token is not a number");
        let expires = number(next("exp").ok_or("the token does not begin with its end")?)?;
        let not_before = next("nbf").map(number).transpose()?;
        let client = next("ip").map(|claim| network(claim).ok_or("the token's address is none")).transpose()?;
        let methods = next("m");
        if methods.is_some_and(|methods| !is_list(methods, |c| c.is_ascii_uppercase() || c == '-')) {
            return Err("the token's methods are none");
        }
        let depth = next("p").map(|claim| count(claim).ok_or("the token's prefix is not a number")).transpose()?;
        let parameters = next("q");
        if parameters.is_some_and(|names| names != ALL && !is_list(names, is_plain)) {
            return Err("the token's parameters are no names");
        }
        let id = next("id");
        if id.is_some_and(|id| !is_id(id)) {
            return Err("the token's id is none");
        }
        if rest.next().is_some() {
            return Err("the token has a claim that is not known, or not in its place");
        }
        Ok(Claims { signed, expires, not_before, client, methods, depth, parameters, id, mac })
    }

    /// Whether the request is one of those that the token is for.
    fn allow(&self, request: &Presented<'_>, now: u64, skew: u64) -> Result<(), Refused> {
        let is = |method: &Method, name: &str| method.as_str() == name || (method == Method::HEAD && name == "GET");
        if !self.methods.unwrap_or("GET").split(',').any(|name| is(request.method, name)) {
            return Err(Refused::Elsewhere("the token is for other methods"));
        }
        if self.client.is_some_and(|network| !network.contains(&request.client)) {
            return Err(Refused::Elsewhere("the token is for another address"));
        }
        if let Some(begin) = self.not_before.filter(|begin| now.saturating_add(skew) < *begin) {
            return Err(Refused::NotYet(begin));
        }
        if now > self.expires.saturating_add(skew) {
            return Err(Refused::Expired(self.expires));
        }
        Ok(())
    }
}

/// What of the request is signed, beside the claims.
struct Subject<'a> {
    authority: &'a str,
    /// In normal form: the whole, or the folder that the token is for.
    path: &'a str,
    query: Option<&'a str>,
}

type Lines<'a> = SmallVec<[Cow<'a, str>; 4]>;

impl Subject<'_> {
    /// The named parameters in normal form, in the order of the names and then of the query: each time that one is there.
    fn lines<'s>(&'s self, names: Option<&'s str>, places: &Places) -> Result<Lines<'s>, Refused> {
        let lines: Lines<'s> = match (names, self.query) {
            (None, _) | (_, None) => Lines::new(),
            (Some(ALL), Some(query)) => {
                let left = take::from_query(query, &places.parameters);
                left.into_iter().map(|query| Cow::Owned(normalise_query(&query).into_owned())).collect()
            }
            (Some(names), query) => {
                names.split(',').flat_map(|name| find::pieces(query, name)).map(normalise_query).collect()
            }
        };
        // HTTP has no target with a line end, but nothing that is signed may rest on that.
        let ends = |text: &str| memchr::memchr(b'\n', text.as_bytes()).is_some();
        if ends(self.authority) || ends(self.path) || lines.iter().any(|line| ends(line)) {
            return Err(Refused::Malformed("a line end in the URL"));
        }
        Ok(lines)
    }
}

/// What is signed: the version, the host, the path, the claims and the parameters, a line each. No line has a line end in
/// it, and the claims tell which parameters follow: no two requests share a text.
fn text<'a>(claims: &'a str, subject: &'a Subject<'_>, lines: &'a Lines<'_>) -> SmallVec<[&'a [u8]; 16]> {
    let end: &[u8] = b"\n";
    let mut text = SmallVec::new();
    text.push(VERSION);
    for part in [subject.authority, subject.path, claims] {
        text.extend([part.as_bytes(), end]);
    }
    for line in lines {
        text.extend([line.as_bytes(), end]);
    }
    text
}

/// The first `depth` segments of a path in normal form, with the slash behind them.
fn folder(path: &str, depth: usize) -> Result<&str, Refused> {
    let slash = memchr::memchr_iter(b'/', path.as_bytes()).nth(depth);
    let folder =
        slash.and_then(|at| path.get(..=at)).ok_or(Refused::Elsewhere("the path is shorter than the prefix"))?;
    if may_climb(path) {
        return Err(Refused::Elsewhere("the path could be read as one outside of the prefix"));
    }
    Ok(folder)
}

fn depth(folder: &str) -> usize {
    folder.bytes().filter(|byte| *byte == b'/').count().saturating_sub(1)
}

/// The claims as the token says them.
fn claims(wish: &Wish<'_>, parameter: &str) -> Result<String, CannotSign> {
    let every = [
        Part::Expires,
        Part::NotBefore,
        Part::Client,
        Part::Prefix,
        Part::Methods,
        Part::Parameters,
        Part::Id,
        Part::InPath,
        Part::InCookie,
    ];
    wish.within("foreland", &every)?;
    let expires = wish.expires.ok_or(CannotSign::Needs(Part::Expires))?;
    let mut claims = format!("exp={expires}");
    if let Some(begin) = wish.not_before {
        claims += &format!("~nbf={begin}");
    }
    match wish.client.map(|client| (client.trunc(), single(client))) {
        None => {}
        Some((_, Some(address))) => claims += &format!("~ip={}", address.to_canonical()),
        Some((network, None)) => claims += &format!("~ip={}_{}", network.addr(), network.prefix_len()),
    }
    if !wish.methods.is_empty() {
        let names: Vec<&str> = wish.methods.iter().map(Method::as_str).collect();
        claims += &format!("~m={}", names.join(","));
    }
    if let Some(prefix) = wish.prefix {
        claims += &format!("~p={}", depth(prefix));
    }
    if !wish.parameters.is_empty() {
        if wish.parameters.iter().any(|name| name == parameter) {
            return Err(CannotSign::Value(Part::Parameters, "other parameters than that of the token"));
        }
        claims += &format!("~q={}", wish.parameters.join(","));
    }
    if let Some(id) = wish.id {
        if !is_id(id) {
            return Err(CannotSign::Value(Part::Id, "up to 64 letters, digits, `-`, `_` and `.`"));
        }
        claims += &format!("~id={id}");
    }
    // What the verifier would not read is not given out.
    match Claims::read(&format!("{claims}~mac=")) {
        Ok(_) => Ok(claims),
        Err("the token's parameters are no names") => {
            Err(CannotSign::Value(Part::Parameters, "up to 16 names of letters, digits, `-`, `_` and `.`, or `*`"))
        }
        Err("the token's methods are none") => Err(CannotSign::Value(Part::Methods, "up to 16 names in upper case")),
        Err(why) => Err(CannotSign::Impossible(why.to_owned())),
    }
}

/// `192.0.2.7`, `192.0.2.0_24`, `2001:db8::_48`.
fn network(text: &str) -> Option<IpNet> {
    let Some((address, length)) = text.split_once('_') else {
        return text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    };
    IpNet::new(address.parse().ok()?, u8::try_from(count(length)?).ok()?).ok()
}

/// Up to three digits.
fn count(text: &str) -> Option<usize> {
    let fits = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

fn is_list(text: &str, fits: impl Fn(char) -> bool) -> bool {
    let mut names = 0;
    text.split(',').all(|name| {
        names += 1;
        names <= MOST_PARAMETERS && !name.is_empty() && name.chars().all(&fits)
    })
}

fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.len()) && text.chars().all(is_plain)
}

/// The unreserved characters of RFC 3986 §2.3, less the one that separates claims.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
}

#[cfg(test)]
#[path = "foreland_tests.rs"]
mod tests;
