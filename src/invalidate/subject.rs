//! What is stored, as purges see it.

use crate::http_cache::Tags;
use crate::site;

/// By what something that is stored can be selected.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The name of its site.
    pub site: &'a str,
    /// With the port, where that is not the scheme's own.
    pub host: &'a str,
    pub path: &'a str,
    /// What of it is in the key.
    pub query: Option<&'a str>,
    pub tags: &'a Tags,
}

impl<'a> Subject<'a> {
    /// Of a cache key's text and the tags that the response came with. `None` where the text is no key's: then nothing
    /// but everything selects it.
    pub fn new(key: &'a [u8], tags: &'a Tags) -> Option<Subject<'a>> {
        let site::Parts { zone, host, path, query } = site::parts(key)?;
        Some(Subject { site: zone, host, path, query, tags })
    }

    /// The host, without the port if it has one.
    pub fn name(&self) -> &'a str {
        without_port(self.host)
    }
}

/// A host without its port. An IPv6 address stands in brackets.
pub fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => &host[..colon],
        _ => host,
    }
}
