//! Where tokens are found in a request: parameters of the query and cookies, by their exact names.

use std::borrow::Cow;

use http::{HeaderMap, header};

/// No token of any signer comes near; what is longer is not looked at.
pub(super) const MAX_TOKEN: usize = 8 * 1024;

/// The first value of a query parameter that is not empty. What a client has encoded without need (`~` as `%7E`) is
/// decoded.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value).find(|value| !value.is_empty())?;
    Some(crate::site::normalise_query(value))
}

/// The query without these parameters; `None` if nothing is left of it.
pub(super) fn without<'a>(query: Option<&'a str>, names: &[&str]) -> Option<Cow<'a, str>> {
    let query = query?;
    let kept = |pair: &&str| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        !names.contains(&name)
    };
    if query.split('&').all(|pair| kept(&pair)) {
        return Some(Cow::Borrowed(query));
    }
    let mut rest = String::with_capacity(query.len());
    for pair in query.split('&').filter(kept) {
        if !rest.is_empty() {
            rest.push('&');
        }
        rest.push_str(pair);
    }
    (!rest.is_empty()).then_some(Cow::Owned(rest))
}

/// The first value of a cookie that is not empty.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(known, _)| *known == name).map(|(_, value)| value).find(|value| !value.is_empty())
}

/// `http` or `https`.
pub(super) fn scheme(secure: bool) -> &'static str {
    if secure { "https" } else { "http" }
}

/// What tells a token from others without being of use as one: the begin of its signature.
pub(super) fn begin(signature: &str) -> String {
    signature.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_by_their_exact_names() {
        let query = Some("a=1&token=&tokens=x&token=%7Ey%2F&token=z&Token=q");
        assert_eq!(parameter(query, "token").as_deref(), Some("~y%2F"));
        assert_eq!(parameter(query, "b"), None);
        assert_eq!(parameter(None, "a"), None);
        assert_eq!(without(query, &["token"]).as_deref(), Some("a=1&tokens=x&Token=q"));
        assert_eq!(without(Some("a&b=&&c=1"), &["x"]).as_deref(), Some("a&b=&&c=1"));
        assert_eq!(without(Some("token=1&token"), &["token"]), None);
        assert_eq!(without(Some(""), &["token"]).as_deref(), Some(""));
        assert_eq!(without(None, &["token"]), None);
    }

    #[test]
    fn cookies_may_be_in_several_lines() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; token=".parse().unwrap());
        headers.append(header::COOKIE, "xtoken=2;token=3=; token=4".parse().unwrap());
        assert_eq!(cookie(&headers, "token"), Some("3="));
        assert_eq!(cookie(&headers, "b"), None);
    }
}
