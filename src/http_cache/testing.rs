//! What the unit tests of these rules share.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A header section of these fields, in this order. From bytes: a value may hold obs-text.
pub fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}
