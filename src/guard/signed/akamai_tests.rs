use proptest::prelude::*;

use super::*;
use crate::guard::signed::testing::{Request, fuzz_cases};

const NOW: u64 = 1_370_600_000;
const PATH: &str = "/i/test-content/BigBuckBunny_640x360.m4v/master.m3u8";

fn format(key: &[u8], algorithm: AkamaiAlgorithm, salt: Option<&str>) -> UrlFormat {
    UrlFormat::Akamai {
        secrets: vec![Secret(key.to_vec(), String::new())],
        parameter: "hdnts".to_owned(),
        algorithm,
        salt: salt.map(|salt| Secret(salt.as_bytes().to_vec(), String::new())),
        field_delimiter: '~',
        acl_delimiter: '!',
        escape_early: false,
    }
}

fn plain_format() -> UrlFormat {
    format(&[0xaa, 0x11, 0xbb, 0x22], AkamaiAlgorithm::Sha256, None)
}

fn escaping() -> UrlFormat {
    let UrlFormat::Akamai { secrets, parameter, algorithm, salt, field_delimiter, acl_delimiter, .. } = plain_format()
    else {
        panic!("another format")
    };
    UrlFormat::Akamai { secrets, parameter, algorithm, salt, field_delimiter, acl_delimiter, escape_early: true }
}

fn key(format: &UrlFormat) -> Akamai {
    Akamai::new(format, 0).expect("a key")
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

fn signed(format: &UrlFormat, wish: &Wish<'_>) -> Request {
    match sign(format, wish).expect("a signature") {
        Signed::Target(target) => Request::target(&target, None),
        Signed::Cookie(cookie) => Request::get(wish.path).header("cookie", &cookie),
    }
}

fn with_token(path: &str, token: &str) -> Request {
    Request::get(path).query(&format!("hdnts={token}&somekey=somevalue"))
}

/// What Akamai's own generator printed, as others have recorded it, with the command line beside it; the first four stand
/// in the tests of a CDN selector (AkamaiCDN), the last in those of smalltownheroes/akamai-token-auth.
#[test]
fn tokens_of_akamais_generator() {
    let acl = "/i/test-content/BigBuckBunny_640x360.m4v/*";
    let sha256 = plain_format();
    // akamai_token_v2.py --end_time=1370627409 --key=aa11bb22 --ip=115.164.93.0/24 --acl=…
    let ip = format!(
        "ip=115.164.93.0/24~exp=1370627409~acl={acl}~hmac=3712f9a3e027f09e714b26fedb002972b494c17e63f219e44b2f900b754c318d"
    );
    // … --payload=someOpaqueData
    let data = format!(
        "exp=1370627409~acl={acl}~data=someOpaqueData~hmac=315a78f22b4dbd50126dba5941e131e9ba2f32951b7e0f8d215618ca565afd2f"
    );
    // akamai_token_v2.py --algo=sha1 … --salt=aabbcc
    let sha1 = format(&[0xaa, 0x11, 0xbb, 0x22], AkamaiAlgorithm::Sha1, Some("aabbcc"));
    let salted = format!("exp=1370627409~acl={acl}~hmac=913143602e5c14955e1bd33f5d90baf5236f6f7f");
    let verify = |format: &UrlFormat, token: &str, now| {
        key(format).verify(&with_token(PATH, token).client("115.164.93.200").presented(), now)
    };
    for (format, token) in [(&sha256, &ip), (&sha256, &data), (&sha1, &salted)] {
        assert_eq!(verify(format, token, NOW).map(|grant| grant.expires), Ok(Some(1_370_627_409)), "{token}");
        assert_eq!(verify(format, token, 1_370_627_409).map(|_| ()), Ok(()));
        assert_eq!(verify(format, token, 1_370_627_410), Err(Refused::Expired(1_370_627_409)));
    }
    // The signature of another token.
    let wrong = format!(
        "exp=1370627409~acl={acl}~data=someOpaqueData~hmac=3712f9a3e027f09e714b26fedb002972b494c17e63f219e44b2f900b754c318d"
    );
    assert_eq!(verify(&sha256, &wrong, NOW), Err(Refused::Mismatch));

    // Its key is cut to whole bytes: 35654d(f).
    let md5 = format(&[0x35, 0x65, 0x4d], AkamaiAlgorithm::Md5, Some("kbbvmcla96rg29vlg01"));
    let token = "st=1506351323~exp=1506351923~acl=/wngg_VOK3DIVL0001D/media/wngg_VOK3DIVL0001D_nl_1280x720_28_1*\
                 ~hmac=328466b8743199db56f95cb059107e58";
    let request = with_token("/wngg_VOK3DIVL0001D/media/wngg_VOK3DIVL0001D_nl_1280x720_28_1/a.ts", token);
    assert!(key(&md5).verify(&request.presented(), 1_506_351_323).is_ok());
    assert_eq!(key(&md5).verify(&request.presented(), 1_506_351_322), Err(Refused::NotYet(1_506_351_323)));
}

/// From the source of Akamai's generators: what escapes early is signed escaped, with a plus for a space and lower-case
/// digits.
#[test]
fn what_is_signed_of_a_url() {
    let key = |escape_early| {
        let format = if escape_early { escaping() } else { plain_format() };
        Akamai::new(&format, 0).expect("a key")
    };
    let text = |early: bool, url: &str| {
        key(early).signing("exp=1", Some(url), |text| String::from_utf8(text.concat()).expect("text"))
    };
    assert_eq!(text(false, "/avatars/me 1.png"), "exp=1~url=/avatars/me 1.png");
    assert_eq!(text(true, "/avatars/me 1.png"), "exp=1~url=%2favatars%2fme+1.png");
    assert_eq!(text(true, "/a~b*c?d=é"), "exp=1~url=%2fa%7eb%2ac%3fd%3d%c3%a9");
}

#[test]
fn a_url_is_not_in_its_token() {
    for format in [plain_format(), escaping()] {
        let key = key(&format);
        let request = signed(&format, &wish("/video/a%20b.mp4"));
        assert!(!request.query.as_deref().is_some_and(|query| query.contains("video")));
        let verify = |request: &Request| key.verify(&request.presented(), NOW);
        assert!(verify(&request).is_ok());
        assert_eq!(verify(&Request { path: "/video/b.mp4".to_owned(), ..request.clone() }), Err(Refused::Mismatch));
        // A path's token holds with any query, one of a path with a query for that alone.
        let query = request.query.clone().unwrap_or_default();
        assert!(verify(&request.clone().query(&format!("x=1&{query}"))).is_ok());
        let signed = format!("exp={}", NOW + 60);
        let tag = key.signing(&signed, Some("/a?x=1"), |text| key.keys.sign(text));
        let hex: String = tag.iter().map(|byte| format!("{byte:02X}")).collect();
        let whole = format!("hdnts={signed}~hmac={hex}");
        assert!(verify(&Request::get("/a").query(&format!("x=1&{whole}"))).is_ok());
        assert!(verify(&Request::get("/a").query(&format!("{whole}&x=1"))).is_ok());
        for query in [whole.clone(), format!("x=2&{whole}"), format!("x=1&y&{whole}")] {
            assert_eq!(verify(&Request::get("/a").query(&query)), Err(Refused::Mismatch), "{query}");
        }
    }
}

#[test]
fn tokens_stand_in_queries_cookies_and_fields() {
    let format = plain_format();
    let folder = Wish { prefix: Some("/video/"), id: Some("user-1"), ..wish("/video/a") };
    let in_query = signed(&format, &folder);
    let Some(token) = in_query.query.as_deref().and_then(|query| query.strip_prefix("hdnts=")) else {
        panic!("no token")
    };
    let cookie = signed(&format, &Wish { place: Place::Cookie, ..folder.clone() });
    let field = Request::get("/video/b").header("hdnts", token);
    let encoded = Request::get("/video/b").query(&format!("hdnts={}", token.replace('~', "%7E").replace('=', "%3D")));
    for request in [&in_query, &cookie, &field, &encoded] {
        let grant = key(&format).verify(&request.presented(), NOW).expect("a grant");
        assert_eq!(grant, Grant { id: "user-1".to_owned(), expires: Some(NOW + 60) });
    }
    assert_eq!(key(&format).verify(&Request::get("/video/b").presented(), NOW), Err(Refused::Missing));
    // What would end the parameter is encoded.
    for format in [plain_format(), escaping()] {
        let request = signed(&format, &Wish { prefix: Some("/a&b%2F/"), ..wish("/a&b%2F/c") });
        assert!(key(&format).verify(&request.presented(), NOW).is_ok(), "{request:?}");
    }
}

#[test]
fn an_acl_covers_paths() {
    for (acl, path, covered) in [
        ("/*", "/", true),
        ("/*", "/a/b", true),
        ("*/*", "/a/b", true),
        ("/a/*", "/a", false),
        ("/a/*", "/a/", true),
        ("/a/?.ts", "/a/1.ts", true),
        ("/a/?.ts", "/a/12.ts", false),
        ("/a/*.ts", "/a/b/c.ts.ts", true),
        ("/a/*.ts", "/a/b/c.tsx", false),
        ("/a*b*c", "/axxbxxbc", true),
        ("/a*b*c", "/axxcxxb", false),
        ("/a!/b/*", "/a", true),
        ("/a!/b/*", "/b/c", true),
        ("/a!/b/*", "/c", false),
        ("/a b", "/a%20b", true),
        ("/a%20b", "/a%20b", true),
        // A wildcard that is encoded stands for itself.
        ("/%2a", "/b", false),
        ("/%2a", "/*", true),
        ("", "/", false),
        ("/a/*", "/a/../b", false),
        ("/a/*", "/a/..%2fb", false),
        ("/a/*", "/a/%2e%2e;x/b", false),
    ] {
        assert_eq!(key(&plain_format()).covers(acl, path), covered, "{acl} {path}");
    }
    // Escaped early, the wildcards are too.
    assert!(key(&escaping()).covers("%2fa%2f%2a", "/a/b") && !key(&escaping()).covers("%2fa%2f%2a", "/b"));
    assert!(key(&escaping()).covers("/a/*", "/a/b") && !key(&escaping()).covers("%2fa%2f%2a", "/a/..%2fb"));
    let long = "/".to_owned() + &"a".repeat(4000);
    assert!(!key(&plain_format()).covers(&("/".to_owned() + &"*a".repeat(1000) + "b"), &long));
}

#[test]
fn an_address_may_be_a_network() {
    for (format, client) in
        [(plain_format(), "10.1.2.3/32"), (escaping(), "2001:db8::/32"), (plain_format(), "10.0.0.0/8")]
    {
        let client: IpNet = client.parse().expect("a network");
        let request = signed(&format, &Wish { client: Some(client), ..wish("/a") });
        let inside = Request { client: client.addr(), ..request.clone() };
        assert!(key(&format).verify(&inside.presented(), NOW).is_ok(), "{client}");
        let outside = request.client("172.16.0.1");
        let expected = Err(Refused::Elsewhere("the token is for another address"));
        assert_eq!(key(&format).verify(&outside.presented(), NOW), expected, "{client}");
    }
}

#[test]
fn tokens_are_read_to_the_letter() {
    let read = |token: &str| Fields::read(token, '~').map(|_| ());
    assert_eq!(read("exp=1~hmac=0"), Ok(()));
    assert_eq!(read("acl=/*~data=a=b~id=c~ip=::1~exp=1~st=0~hmac=0"), Ok(()));
    for wrong in [
        "",
        "hmac=0",
        "~hmac=0",
        "exp=1",
        "exp=1~hmac",
        "exp=1~hmac=0~",
        "exp=~hmac=0",
        "exp=x~hmac=0",
        "st=1~hmac=0",
        "exp=1~exp=2~hmac=0",
        "exp=1~url=/a~hmac=0",
        "exp=1~x=1~hmac=0",
        "exp=1~~hmac=0",
        "exp=1~st=-1~hmac=0",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    let mut buffer = [0; 64];
    assert_eq!(unhex("00fFa1", &mut buffer), Some(&[0, 255, 161][..]));
    assert!(unhex("0", &mut buffer).is_none() && unhex("0g", &mut buffer).is_none());
    assert!(unhex(&"0".repeat(130), &mut buffer).is_none());
}

#[test]
fn what_cannot_be_said_is_not_signed() {
    let sign = |wish: Wish<'_>| sign(&plain_format(), &wish);
    let names = ["a".to_owned()];
    let unsupported = |part| Err(CannotSign::Unsupported("akamai", part));
    assert_eq!(sign(Wish { parameters: &names, ..wish("/a") }), unsupported(Part::Parameters));
    assert_eq!(sign(Wish { methods: &[http::Method::POST], ..wish("/a") }), unsupported(Part::Methods));
    assert_eq!(sign(Wish { place: Place::Path, ..wish("/a") }), unsupported(Part::InPath));
    assert_eq!(sign(Wish { expires: None, ..wish("/a") }), Err(CannotSign::Needs(Part::Expires)));
    assert!(matches!(sign(Wish { prefix: Some("/a*/"), ..wish("/a*/b") }), Err(CannotSign::Value(Part::Prefix, _))));
    assert!(matches!(sign(Wish { id: Some("a~b"), ..wish("/a") }), Err(CannotSign::Value(Part::Id, _))));
}

proptest! {
    #![proptest_config(fuzz_cases())]

    #[test]
    fn nothing_mutated_verifies(path in "/[a-z]{1,6}/[a-z]{0,6}", folder in any::<bool>(), early in any::<bool>(),
        at in any::<prop::sample::Index>(), byte in any::<u8>(), kind in 0..3) {
        let format = if early { escaping() } else { plain_format() };
        let prefix = folder.then(|| path.get(..=path.rfind('/').unwrap_or(0)).unwrap_or("/"));
        let wish = Wish { prefix, place: Place::Cookie, ..wish(&path) };
        let Ok(Signed::Cookie(cookie)) = sign(&format, &wish) else { panic!("no signature") };
        let token = cookie.strip_prefix("hdnts=").expect("a token");
        let with = |token: &str| key(&format).check(token, &Request::get(&path).presented(), NOW);
        prop_assert!(with(token).is_ok());
        let mut bytes = token.as_bytes().to_vec();
        let at = at.index(bytes.len());
        match kind {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
        let Ok(mutated) = String::from_utf8(bytes) else { return Ok(()) };
        // Hexadecimal digits of either case are the same signature.
        prop_assume!(!mutated.eq_ignore_ascii_case(token));
        prop_assert!(with(&mutated).is_err(), "{mutated}");
    }

    #[test]
    fn no_token_panics_or_verifies(token in "((exp|st|ip|acl|id|data|hmac)=[0-9a-f/*!%.]{0,12}~){0,4}hmac=[0-9a-f]{0,66}|\\PC{0,60}",
        path in "(/[a-z.%;\\\\]{0,5}){0,4}", query in prop::option::of("[a-z=&%]{0,12}")) {
        let request = Request { query, ..Request::get(&path) };
        prop_assert!(key(&plain_format()).check(&token, &request.presented(), NOW).is_err());
    }

    /// Against the plainest rule there is.
    #[test]
    fn patterns_match_as_they_should(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
        fn plainly(pattern: &[u8], text: &[u8]) -> bool {
            match (pattern.split_first(), text.split_first()) {
                (None, rest) => rest.is_none(),
                (Some((b'*', left)), rest) => plainly(left, text) || rest.is_some_and(|(_, rest)| plainly(pattern, rest)),
                (Some((unit, left)), Some((byte, rest))) => (*unit == b'?' || unit == byte) && plainly(left, rest),
                (Some(_), None) => false,
            }
        }
        let expected = plainly(pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(matches_pattern(&pattern, true, text.as_bytes()), expected);
    }
}
