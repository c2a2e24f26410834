//! The URI container: which URLs a token is for (RFC 9246 §2.1.15).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use quick_cache::sync::Cache;
use regex::bytes::{Regex, RegexBuilder};
use sha2::{Digest, Sha256};

use crate::guard::signed::keys::scheme;
use crate::guard::signed::text::may_climb;
use crate::guard::signed::{Presented, Refused, take};
use crate::site::{normalise_authority, normalise_path, normalise_query};

/// Longer ones take too long to compile.
const MAX_PATTERN: usize = 1024;
/// Bytes of a compiled pattern, which bounds the time of compiling (a millisecond) and of matching, too: `((a{30}){30}){30}`
/// is refused.
const MAX_PROGRAM: usize = 32 * 1024;
/// Bytes that matching may cache, for each thread that matches at the same time.
const MAX_STATES: usize = 64 * 1024;
/// Nested groups.
const MAX_NESTING: u32 = 32;
/// Compiled patterns that are kept. They are those of tokens that have been verified: no client fills this with others.
const KEPT: usize = 256;

/// The patterns of tokens, compiled.
pub(super) struct Patterns {
    kept: Cache<Box<str>, Arc<Regex>>,
}

impl Default for Patterns {
    fn default() -> Self {
        Patterns { kept: Cache::new(KEPT) }
    }
}

impl Patterns {
    /// Whether a container holds a URI.
    pub(super) fn check(&self, container: &str, uri: &str) -> Result<(), Refused> {
        let holds = match container.split_once(':') {
            Some(("hash", segment)) => hashes_to(segment, uri)?,
            // A token for many URLs is for no path that an origin could read as one outside of them.
            Some(("regex", _)) if may_climb(path(uri)) => {
                return Err(Refused::Elsewhere("the path has encoded dot segments, under a token for many URLs"));
            }
            Some(("regex", pattern)) => self.compiled(pattern)?.is_match(uri.as_bytes()),
            _ => return Err(Refused::Malformed("cdniuc is neither hash: nor regex:")),
        };
        if holds { Ok(()) } else { Err(Refused::Elsewhere("the token is for another URL")) }
    }

    fn compiled(&self, pattern: &str) -> Result<Arc<Regex>, Refused> {
        if let Some(kept) = self.kept.get(pattern) {
            return Ok(kept);
        }
        let compiled =
            compile(pattern).ok_or(Refused::Malformed("cdniuc has a pattern that is wrong, or too large"))?;
        let compiled = Arc::new(compiled);
        self.kept.insert(pattern.into(), Arc::clone(&compiled));
        Ok(compiled)
    }
}

/// The URI that is compared (RFC 9246 §2.1.15): without the token, normalised as RFC 3986 §6.2.2 and §6.2.3 say, and
/// percent-encoded.
pub(super) fn uri(request: &Presented<'_>, parameters: &[String]) -> String {
    let query = request.query.and_then(|query| take::from_query(query, parameters));
    write_uri(scheme(request.secure), request.authority, request.path, query.as_deref())
}

/// The container of one URL, as `cdniuc` has it.
///
/// # Errors
/// A phrase: the text is not an absolute URL of http or https.
pub fn exactly(url: &str) -> Result<String, &'static str> {
    let digest = Sha256::digest(normal(url)?);
    Ok(format!("hash:sha-256;{}", URL_SAFE_NO_PAD.encode(digest)))
}

/// The container of all URLs that begin as this one does, as `cdniuc` has it: those of a directory, if it ends with a slash.
///
/// # Errors
/// A phrase: the text is not an absolute URL of http or https, or too long.
pub fn below(url: &str) -> Result<String, &'static str> {
    let url = normal(url)?;
    let mut container = "regex:".to_owned();
    for character in url.chars() {
        // What an extended regular expression of POSIX does not take for itself (XBD 9.4.3).
        if matches!(character, '.' | '[' | '\\' | '(' | ')' | '*' | '+' | '?' | '{' | '|' | '^' | '$') {
            container.push('\\');
        }
        container.push(character);
    }
    container.push_str(".*");
    if container.len() > MAX_PATTERN { Err("the URL is too long for a pattern") } else { Ok(container) }
}

/// A URL in normal form.
fn normal(url: &str) -> Result<String, &'static str> {
    const NO_URL: &str = "not an absolute URL of http or https";
    let uri: Uri = url.parse().map_err(|_| NO_URL)?;
    let (scheme, port) = match uri.scheme_str() {
        Some("http") => ("http", 80),
        Some("https") => ("https", 443),
        _ => return Err(NO_URL),
    };
    let authority = uri.authority().ok_or(NO_URL)?;
    let (authority, _) = normalise_authority(authority.as_str(), port).map_err(|_| NO_URL)?;
    Ok(write_uri(scheme, &authority, uri.path(), uri.query()))
}

fn write_uri(scheme: &str, authority: &str, path: &str, query: Option<&str>) -> String {
    let path = normalise_path(path);
    let mut uri = String::with_capacity(
        scheme.len() + "://".len() + authority.len() + path.len() + query.map_or(0, |query| query.len() + 1),
    );
    uri.push_str(scheme);
    uri.push_str("://");
    uri.push_str(authority);
    uri.push_str(&path);
    if let Some(query) = query {
        uri.push('?');
        uri.push_str(&normalise_query(query));
    }
    uri
}

/// The path of a URI that [`write_uri`] has written.
fn path(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let rest = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
    rest.split_once('?').map_or(rest, |(path, _)| path)
}

/// A URL segment of RFC 6920 §5. Its shorter hashes are not for what has to withstand an attack.
fn hashes_to(segment: &str, uri: &str) -> Result<bool, Refused> {
    let encoded = segment.strip_prefix("sha-256;").ok_or(Refused::Malformed("cdniuc has a hash other than sha-256"))?;
    let said = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Refused::Malformed("cdniuc has a hash not in base64url"))?;
    Ok(*said == *Sha256::digest(uri))
}

/// A pattern for the whole of a URI. RFC 9246 does not say whether a part of it would do, and a signer who writes
/// `http://a.test/free` would not have everything that begins so in mind, nor what has it in its query.
fn compile(pattern: &str) -> Option<Regex> {
    if pattern.len() > MAX_PATTERN {
        return None;
    }
    // By itself first, so that no parenthesis of the pattern's closes the one around it.
    builder(pattern).build().ok()?;
    builder(&format!(r"\A(?:{pattern})\z")).build().ok()
}

/// Bytes, as the POSIX locale has them.
fn builder(pattern: &str) -> RegexBuilder {
    let mut builder = RegexBuilder::new(pattern);
    builder.unicode(false).size_limit(MAX_PROGRAM).dfa_size_limit(MAX_STATES).nest_limit(MAX_NESTING);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(container: &str, uri: &str) -> Result<(), Refused> {
        Patterns::default().check(container, uri)
    }

    #[test]
    fn patterns_are_of_the_whole_uri() {
        let cases = [
            (r"regex:http://cdni\.example/foo/bar/[0-9]{3}\.png", "http://cdni.example/foo/bar/123.png", true),
            (r"regex:http://cdni\.example/foo/bar/[0-9]{3}\.png", "http://cdni.example/foo/bar/123.png?x", false),
            (r"regex:http://cdni\.example/foo/bar/[0-9]{3}\.png", "http://cdni.example/foo/bar/12.png", false),
            (r"regex:http://cdni\.example/foo/bar/[0-9]{3}\.png", "http://cdnixexample/foo/bar/123.png", false),
            // RFC 9246 §2.1.15.2.
            (
                r"regex:[^:]*\://[^/]*/dir/content/quality_[^/]*/segment.{3}\.mp4(\?.*)?",
                "https://a.test/dir/content/quality_hd/segment001.mp4?a=b",
                true,
            ),
            (r"regex:http://a/(b|bc)", "http://a/bc", true),
            (r"regex:http://a/b|http://a/c", "http://a/c", true),
            (r"regex:http://a/b|http://a/c", "http://x/?http://a/c", false),
            (r"regex:^http://a/[[:alpha:]]+$", "http://a/b", true),
            (r"regex:http://a/.*", "http://a/", true),
            (r"regex:", "http://a/", false),
        ];
        for (container, uri, expected) in cases {
            assert_eq!(holds(container, uri).is_ok(), expected, "{container} {uri}");
        }
    }

    #[test]
    fn what_is_no_container_or_too_much_is_refused() {
        let long = format!("regex:{}", "a".repeat(MAX_PATTERN + 1));
        for container in [
            "",
            "http://a/",
            "uri:http://a/",
            "Regex:.*",
            "regex:(",
            // Would leave the parentheses that are put around it.
            "regex:a)|(.*",
            "regex:(((a{30}){30}){30})",
            &format!("regex:{}{}", "(".repeat(100), ")".repeat(100)),
            &long,
            "hash:",
            "hash:md5;AAAA",
            "hash:sha-256;!",
            "hash:sha-256-128;2tderfWPa86Ku7YnzW51YQ",
        ] {
            assert!(matches!(holds(container, "http://a/"), Err(Refused::Malformed(_))), "{container}");
        }
        assert!(matches!(holds("hash:sha-256;AAAA", "http://a/"), Err(Refused::Elsewhere(_))));
    }

    #[test]
    fn a_container_is_made_of_a_url_in_normal_form() {
        // RFC 9246 appendix A.1.
        let example = "hash:sha-256;2tderfWPa86Ku7YnzW51YUp7dGUjBS_3SW3ELx4hmWY";
        for url in ["http://cdni.example/foo/bar", "HTTP://CDNI.example:80/x/../%66oo/./bar"] {
            assert_eq!(exactly(url).as_deref(), Ok(example), "{url}");
        }
        assert_eq!(below("https://a.test:8443/v/").as_deref(), Ok(r"regex:https://a\.test:8443/v/.*"));
        let container = below("http://a.test/a+(b)/$c?d=[e]&f=*").unwrap();
        assert_eq!(holds(&container, "http://a.test/a+(b)/$c?d=[e]&f=*&more"), Ok(()));
        assert!(holds(&container, "http://a.test/aa(b)/$c?d=[e]&f=*").is_err());
        for url in ["", "/a", "a.test", "ftp://a.test/", "http:///a"] {
            assert!(exactly(url).is_err() && below(url).is_err(), "{url}");
        }
        assert!(below(&format!("http://a.test/{}", "a".repeat(MAX_PATTERN))).is_err());
    }

    #[test]
    fn compiled_patterns_are_kept_up_to_a_number() {
        let patterns = Patterns::default();
        for n in 0..2 * KEPT {
            assert_eq!(patterns.check(&format!("regex:http://a/{n}"), &format!("http://a/{n}")), Ok(()));
        }
        assert!(patterns.kept.len() <= KEPT && patterns.kept.len() > KEPT / 2, "{}", patterns.kept.len());
        assert!(patterns.kept.get(format!("http://a/{}", 2 * KEPT - 1).as_str()).is_some());
    }
}
