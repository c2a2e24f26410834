use proptest::prelude::*;

use super::*;
use crate::guard::signed::sign::Place;
use crate::guard::signed::testing::{Request, fuzz_cases};

const NOW: u64 = 1_767_286_800;

fn secret(text: &str) -> Secret {
    Secret(text.as_bytes().to_vec(), String::new())
}

/// `$secure_link_expires$uri$remote_addr $secret`
fn documented() -> Vec<Piece> {
    vec![Piece::Expires, Piece::Uri, Piece::RemoteAddress, Piece::Text(" ".to_owned()), Piece::Secret]
}

fn key(expression: &[Piece], secrets: &[&str]) -> SecureLink {
    let secrets: Vec<_> = secrets.iter().map(|text| secret(text)).collect();
    SecureLink::new(&secrets, expression, "md5", "expires", 0)
}

fn wish(path: &str) -> Wish<'_> {
    Wish {
        secure: true,
        authority: "cdn.example",
        path,
        query: None,
        now: NOW,
        expires: Some(NOW + 60),
        not_before: None,
        client: None,
        prefix: None,
        methods: &[],
        parameters: &[],
        id: None,
        place: Place::Query,
    }
}

fn signed(expression: &[Piece], wish: &Wish<'_>) -> Result<String, CannotSign> {
    match sign(&[secret("s")], expression, "md5", "expires", wish)? {
        Signed::Target(target) => Ok(target),
        other => panic!("{other:?}"),
    }
}

/// https://nginx.org/en/docs/http/ngx_http_secure_link_module.html#secure_link_md5:
/// `echo -n '2147483647/s/link127.0.0.1 secret' | openssl md5 -binary | openssl base64 | tr +/ -_ | tr -d =`
#[test]
fn the_example_of_nginx() {
    let expression = documented();
    let key = key(&expression, &["secret"]);
    let request = Request::get("/s/link").query("md5=_e4Nc3iduzkWRm01TBBNYw&expires=2147483647").client("127.0.0.1");
    let grant = key.verify(&request.presented(), NOW).expect("a grant");
    assert_eq!(grant, Grant { id: "_e4Nc3id".to_owned(), expires: Some(2_147_483_647) });
    assert!(key.verify(&request.presented(), 2_147_483_647).is_ok());
    assert_eq!(key.verify(&request.presented(), 2_147_483_648), Err(Refused::Expired(2_147_483_647)));
    assert_eq!(key.verify(&request.clone().client("127.0.0.2").presented(), NOW), Err(Refused::Mismatch));
    let wish = Wish {
        client: Some("127.0.0.1/32".parse().expect("a network")),
        expires: Some(2_147_483_647),
        ..wish("/s/link")
    };
    let target = sign(&[secret("secret")], &expression, "md5", "expires", &wish);
    assert_eq!(target, Ok(Signed::Target("/s/link?expires=2147483647&md5=_e4Nc3iduzkWRm01TBBNYw".to_owned())));
}

#[test]
fn what_is_missing_or_wrong() {
    let key = key(&documented(), &["secret"]);
    let verify = |query: &str| key.verify(&Request::get("/s/link").query(query).client("127.0.0.1").presented(), NOW);
    let hash = "_e4Nc3iduzkWRm01TBBNYw";
    assert_eq!(verify("expires=2147483647"), Err(Refused::Missing));
    assert!(verify(&format!("md5={hash}==&expires=2147483647")).is_ok());
    assert_eq!(verify(&format!("md5={hash}&expires=2147483646")), Err(Refused::Mismatch));
    for query in [
        format!("md5={hash}"),
        format!("md5={hash}&expires="),
        format!("md5={hash}&expires=-1"),
        format!("md5={hash}&expires=2147483647&expires=1"),
        format!("md5={hash}&expires=2147483647&md5=x"),
        "md5=&expires=2147483647".to_owned(),
        "md5=AAAA&expires=2147483647".to_owned(),
        "md5=/e4Nc3iduzkWRm01TBBNYw&expires=2147483647".to_owned(),
        // The same bytes in another text.
        "md5=_e4Nc3iduzkWRm01TBBNYx&expires=2147483647".to_owned(),
    ] {
        assert!(matches!(verify(&query), Err(Refused::Malformed(_))), "{query}");
    }
    assert_eq!(key.places().parameters, ["md5", "expires"]);
}

#[test]
fn without_an_end_in_the_expression_links_do_not_end() {
    let expression = [Piece::Uri, Piece::Text(" ".to_owned()), Piece::Secret];
    let target = signed(&expression, &Wish { expires: None, ..wish("/a") }).expect("a target");
    let request = Request::target(&format!("{target}&expires=1"), None);
    let grant = key(&expression, &["s"]).verify(&request.presented(), u64::MAX).expect("a grant");
    assert_eq!(grant.expires, None);
    // Then the parameter is the origin's.
    assert_eq!(key(&expression, &["s"]).places().parameters, ["md5"]);
    assert!(matches!(signed(&expression, &wish("/a")), Err(CannotSign::Unsupported(_, Part::Expires))));
    // Some bind the end by its argument.
    let by_argument = [Piece::Argument("expires".to_owned()), Piece::Uri, Piece::Secret];
    let target = signed(&by_argument, &wish("/a")).expect("a target");
    let request = Request::target(&target, None);
    assert!(key(&by_argument, &["s"]).verify(&request.presented(), NOW + 60).is_ok());
    assert!(key(&by_argument, &["s"]).verify(&request.presented(), NOW + 61).is_err());
}

#[test]
fn each_variable_has_its_value() {
    let expression: Vec<Piece> = [
        Piece::Scheme,
        Piece::Host,
        Piece::Uri,
        Piece::Argument("w".to_owned()),
        Piece::Header("user-agent".to_owned()),
        Piece::Cookie("session".to_owned()),
        Piece::RemoteAddress,
        Piece::Secret,
    ]
    .into();
    let mut request = Request::get("/a%2f%C3%A9/../b%20c")
        .query("x=1&W=2%31")
        .header("user-agent", "one")
        .header("user-agent", "two")
        .header("cookie", "a=b; session=s1")
        .client("2001:db8::1");
    request.authority = "cdn.example:8443".to_owned();
    let presented = request.presented();
    let values = values(&expression, &presented, "").expect("values");
    let values: Vec<_> = values.iter().map(|value| value.as_deref().map(String::from_utf8_lossy)).collect();
    let expected = ["https", "cdn.example", "/b c", "2%31", "one, two", "s1", "2001:db8::1"];
    let found: Vec<_> = values.iter().flatten().map(|value| &**value).collect();
    assert_eq!((found.as_slice(), values.last()), (&expected[..], Some(&None)));
    // Of two, an origin may take the one that is not signed.
    let twice = request.clone().query("w=1&w=2");
    assert!(super::values(&expression, &twice.presented(), "").is_err());
}

#[test]
fn what_only_a_request_has_is_not_signed() {
    let needs = |piece| signed(&[Piece::Expires, piece, Piece::Secret], &wish("/a"));
    assert_eq!(needs(Piece::RemoteAddress), Err(CannotSign::Needs(Part::Client)));
    assert!(matches!(needs(Piece::Cookie("a".to_owned())), Err(CannotSign::Impossible(_))));
    assert!(matches!(needs(Piece::Header("a".to_owned())), Err(CannotSign::Impossible(_))));
    let network = Wish { client: Some("10.0.0.0/8".parse().expect("a network")), ..wish("/a") };
    assert!(matches!(signed(&documented(), &network), Err(CannotSign::Value(Part::Client, _))));
    assert_eq!(signed(&documented(), &Wish { expires: None, ..network }), Err(CannotSign::Needs(Part::Expires)));
    let folder = Wish { prefix: Some("/"), ..wish("/a") };
    assert!(matches!(signed(&[Piece::Expires, Piece::Secret], &folder), Err(CannotSign::Unsupported(_, Part::Prefix))));
}

proptest! {
    #![proptest_config(fuzz_cases())]

    #[test]
    fn nothing_mutated_verifies(path in "/[a-z/]{0,12}", other in "/[a-z/]{0,12}", hash in "[A-Za-z0-9_-]{21}[AQgw]", end in 0..NOW * 2) {
        let expression = [Piece::Expires, Piece::Uri, Piece::Text(" ".to_owned()), Piece::Secret];
        let key = key(&expression, &["s", "t"]);
        let target = signed(&expression, &wish(&path)).expect("a target");
        let request = Request::target(&target, None);
        prop_assert!(key.verify(&request.presented(), NOW).is_ok());
        if other != path {
            let elsewhere = Request { path: other, ..request.clone() };
            prop_assert_eq!(key.verify(&elsewhere.presented(), NOW), Err(Refused::Mismatch));
        }
        let forged = Request::get(&path).query(&format!("expires={}&md5={hash}", NOW + 60));
        prop_assert_eq!(key.verify(&forged.presented(), NOW), Err(Refused::Mismatch));
        if end != NOW + 60 {
            let longer = request.query.as_deref().map(|query| query.replace(&(NOW + 60).to_string(), &end.to_string()));
            prop_assert_eq!(key.verify(&Request { query: longer, ..request }.presented(), NOW), Err(Refused::Mismatch));
        }
    }

    #[test]
    fn no_request_panics_or_verifies(path in "\\PC{0,30}", query in "(md5|expires|w|&|=|%|[0-9A-Za-z_-]{22}|\\PC){0,10}", authority in "\\PC{0,12}") {
        let expression = [documented(), vec![Piece::Argument("w".to_owned()), Piece::Host]].concat();
        let request = Request { authority, query: Some(query), ..Request::get(&path) };
        prop_assert!(key(&expression, &["secret"]).verify(&request.presented(), NOW).is_err());
    }
}
