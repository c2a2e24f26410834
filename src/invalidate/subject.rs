//! What is stored, as purges see it.

use crate::http_cache::Tags;
use crate::site;

/// By what something that is stored can be selected.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub parts: site::Parts<'a>,
    pub tags: &'a Tags,
}

impl<'a> Subject<'a> {
    /// Of a cache key's text and the tags that the response came with. `None` where the text is no key's: then nothing
    /// but everything selects it.
    pub fn new(key: &'a [u8], tags: &'a Tags) -> Option<Subject<'a>> {
        Some(Subject { parts: site::parts(key)?, tags })
    }

    /// The host, without the port if it has one.
    pub fn name(&self) -> &'a str {
        without_port(self.parts.host)
    }
}

/// A host without its port. An IPv6 address stands in brackets.
pub fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => &host[..colon],
        _ => host,
    }
}
