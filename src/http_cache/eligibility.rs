//! Which requests the cache has a part in.

use http::Method;

use super::policy::Policy;
use super::status::FwdReason;

/// Why a request passes the cache by: it is neither answered from what is stored, nor is its response stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// The cache is off.
    Off,
    /// Neither GET nor HEAD.
    Method,
    /// The request has content: what a GET with content means is between the client and the origin.
    Content,
    /// The connection is to speak another protocol.
    Upgrade,
}

impl Bypass {
    /// The reason in the terms of Cache-Status.
    pub fn fwd(self) -> FwdReason {
        match self {
            Bypass::Method => FwdReason::Method,
            Bypass::Off | Bypass::Content | Bypass::Upgrade => FwdReason::Bypass,
        }
    }
}

/// Whether responses to a method are looked up and stored: those to GET, and HEAD shares them (RFC 9111 §2, §4).
pub fn is_cached_method(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// Why the cache has no part in a request; `None`: it has. `policy` is `None` where the cache is off; `upgrade`: the
/// request asks for another protocol.
pub fn bypass(policy: Option<&Policy>, method: &Method, content: bool, upgrade: bool) -> Option<Bypass> {
    match policy {
        None => Some(Bypass::Off),
        Some(_) if !is_cached_method(method) => Some(Bypass::Method),
        Some(_) if content => Some(Bypass::Content),
        Some(_) if upgrade => Some(Bypass::Upgrade),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_reads_are_for_the_cache() {
        let policy = Policy::default();
        let ask = |method: Method, content, upgrade| bypass(Some(&policy), &method, content, upgrade);
        assert_eq!(ask(Method::GET, false, false), None);
        assert_eq!(ask(Method::HEAD, false, false), None);
        assert_eq!(ask(Method::POST, true, false), Some(Bypass::Method));
        assert_eq!(ask(Method::OPTIONS, false, false), Some(Bypass::Method));
        assert_eq!(ask(Method::GET, true, false), Some(Bypass::Content));
        assert_eq!(ask(Method::GET, false, true), Some(Bypass::Upgrade));
        assert_eq!(bypass(None, &Method::POST, false, false), Some(Bypass::Off));
        assert_eq!((Bypass::Off.fwd(), Bypass::Method.fwd()), (FwdReason::Bypass, FwdReason::Method));
    }
}
