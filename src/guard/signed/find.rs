//! Where a request has what.

use http::HeaderMap;
use http::header::COOKIE;

use super::{Grant, Places, Presented, Refused};
use crate::site::tokens::is_named;

/// How many tokens of one request are looked at: two cookies of one name are usual where their paths overlap.
const MOST: usize = 4;

/// The grant of the first token that holds; else why the first is refused.
pub(super) fn first_that_holds<'a>(
    request: &Presented<'a>,
    places: &'a Places,
    mut check: impl FnMut(&'a str) -> Result<Grant, Refused>,
) -> Result<Grant, Refused> {
    let mut refused = None;
    for token in tokens(request, places) {
        match check(token) {
            Ok(grant) => return Ok(grant),
            Err(why) => drop(refused.get_or_insert(why)),
        }
    }
    Err(refused.unwrap_or(Refused::Missing))
}

/// The tokens that a request has, those of the URL first.
pub(super) fn tokens<'a>(request: &Presented<'a>, places: &'a Places) -> impl Iterator<Item = &'a str> {
    let (query, headers) = (request.query, request.headers);
    let in_path = request.in_path.filter(|_| places.path_prefix.is_some());
    let in_query = places.parameters.iter().flat_map(move |name| values(query, name));
    let in_fields = places.fields.iter().flat_map(move |name| headers.get_all(name.as_str()));
    let in_cookies = places.cookies.iter().flat_map(move |name| cookies(headers, name));
    in_path
        .into_iter()
        .chain(in_query)
        .chain(in_fields.filter_map(|line| line.to_str().ok()))
        .chain(in_cookies)
        .filter(|token| !token.is_empty())
        .take(MOST)
}

/// The values of a query's parameters of this name, as they were sent; without a `=` the value is empty.
pub(super) fn values<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    pieces(query, name).map(|piece| piece.split_once('=').map_or("", |(_, value)| value))
}

/// The parameters of this name, as they were sent, with their names.
pub(super) fn pieces<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.into_iter().flat_map(|query| query.split('&')).filter(move |piece| is_named(piece, name))
}

/// The values of the cookies of this name.
pub(super) fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    // Cookies need not be text, and those of one that is not are in the same line as the others.
    let pairs = headers.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs
        .filter_map(|pair| str::from_utf8(pair).ok()?.split_once('='))
        .filter(move |(found, _)| found.trim_matches([' ', '\t']) == name)
        .map(|(_, value)| unquoted(value.trim_matches([' ', '\t'])))
}

/// RFC 6265 §4.1.1: a value may stand in quotes.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::guard::signed::testing::Request;

    fn places() -> Places {
        let token = || vec!["token".to_owned()];
        Places { parameters: token(), cookies: token(), fields: token(), path_prefix: Some("token=".to_owned()) }
    }

    #[test]
    fn tokens_are_found_in_every_place_and_not_without_bound() {
        let mut request = Request::get("/a").query("x=1&%74oken=b&token&token=");
        request.in_path = Some("a".to_owned());
        request.headers.append("token", HeaderValue::from_static("c"));
        request.headers.append(COOKIE, HeaderValue::from_static("tokens=no; token = \"d\";token=e"));
        let places = places();
        let found: Vec<_> = tokens(&request.presented(), &places).collect();
        assert_eq!(found, ["a", "b", "c", "d"]);
        let none = Places::default();
        assert_eq!(tokens(&request.presented(), &none).count(), 0);
    }

    #[test]
    fn a_cookie_that_is_no_text_hides_none_but_itself() {
        let mut request = Request::get("/a");
        request.headers.append(COOKIE, HeaderValue::from_bytes(b"a=\xff").expect("a value"));
        request.headers.append(COOKIE, HeaderValue::from_static("token=t"));
        request.headers.append(COOKIE, HeaderValue::from_bytes(b"b=\xe9; token=u; c=\xc3\xa9").expect("a value"));
        assert_eq!(cookies(&request.headers, "token").collect::<Vec<_>>(), ["t", "u"]);
    }
}
