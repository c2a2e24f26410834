//! The examples of the RFCs, tokens made by another library, and what must be refused.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::model::PublicKeyKind;
use crate::guard::signed::keys::testing::{self, p256, p384, rsa};
use crate::guard::signed::testing::{Request, fuzz_cases};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const IMAGES: &str = r"regex:http://cdni\.example/foo/bar/[0-9]{3}\.png";

fn secret(bytes: &[u8]) -> Secret {
    Secret(bytes.to_vec(), "secret".to_owned())
}

fn with(secrets: &[&[u8]], keys: &[PublicKey]) -> Jwt {
    let secrets: Vec<_> = secrets.iter().map(|bytes| secret(bytes)).collect();
    Jwt::new(&secrets, keys, "URISigningPackage", &[], None, Duration::ZERO).expect("keys that can be used")
}

/// Of the examples' host, over http.
fn asked(target: &str) -> Request {
    let request = Request::target(target, Some("URISigningPackage="));
    Request { secure: false, authority: "cdni.example".to_owned(), ..request }
}

/// A token with such a header and such claims, by [`SECRET`].
fn made(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&Mac::Hs256.key(SECRET), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn claiming(claims: &Value) -> String {
    made(r#"{"alg":"HS256"}"#, &claims.to_string())
}

/// Whether a token with these claims is good for an image, at the second 1000.
fn verified(jwt: &Jwt, claims: &Value) -> Result<Grant, Refused> {
    let request = asked(&format!("/foo/bar/123.png?URISigningPackage={}", claiming(claims)));
    jwt.verify(&request.presented(), 1000)
}

/// RFC 9246, appendix A.
mod cdni {
    use super::*;

    const KID: &str = "P5UpOv0eMq1wcxLf7WxIg09JdSYGYFDOWkldueaImf0";
    const SIMPLE: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlA1VXBPdjBlTXExd2N4TGY3V3hJZzA5SmRTWUdZRkRPV2tsZHVlYUltZjAifQ.\
        eyJleHAiOjE2NDY4NjczNjksImlzcyI6InVDRE4gSW5jIiwiY2RuaXVjIjoiaGFzaDpzaGEtMjU2OzJ0ZGVyZldQYTg2S3U3WW56VzUxWVVwN2RHVW\
        pCU18zU1czRUx4NGhtV1kifQ.TaNlJM3D96i_9J9XvlICO6FUIDFTqt3E2YJkEUOLfcH0b89wYRKTbJ9Yj6h_GRgSoZoQO0cps3yUPcWGK3smCw";
    const COMPLEX: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlA1VXBPdjBlTXExd2N4TGY3V3hJZzA5SmRTWUdZRkRPV2tsZHVlYUltZjAifQ.ey\
        JhdWQiOiJkQ0ROIExMQyIsInN1YiI6ImV5SmxibU1pT2lKQk1USTRSME5OSWl3aVlXeG5Jam9pWkdseUlpd2lhMmxrSWpvaVppMVhZbXA0UWtNelp\
        GQjFTVE5rTWpSclVESm9ablp2Y3pkUmVqWTRPRlZVYVRaaFFqQm9Uams1T0NKOS4uQ0xBdTgweGNsYzhCcC1VaS42UDFBM0Y2aXAyRHYuQ29oZHRM\
        THBnQm5UdlJKUUNGdXotZyIsImNkbmlpcCI6ImV5SmxibU1pT2lKQk1USTRSME5OSWl3aVlXeG5Jam9pWkdseUlpd2lhMmxrSWpvaVppMVhZbXA0U\
        WtNelpGQjFTVE5rTWpSclVESm9ablp2Y3pkUmVqWTRPRlZVYVRaaFFqQm9Uams1T0NKOS4uYVVEREZFUUJJYzNuV2pPYi5iR1hXVEhQa250bVBDS2\
        4wcFBQTkVRLml5VHR0bkZ5Yk8yWUJMcXdsX1lTakEiLCJjZG5pdiI6MSwiZXhwIjoxNjQ2ODY3MzY5LCJpYXQiOjE2NDY2OTQ1NjksImlzcyI6InV\
        DRE4gSW5jIiwianRpIjoiNURBYWZMaFpBZmhzYmUiLCJuYmYiOjE2NDY3ODA5NjksImNkbml1YyI6InJlZ2V4Omh0dHA6Ly9jZG5pXFwuZXhhbXBs\
        ZS9mb28vYmFyL1swLTldezN9XFwucG5nIn0.IjmVX0uD5MYqArc-M08uEsEeoDQn8kuYXZ9HGHDmDDxsHikT0c8jcX8xYD0z3LzQclMG65i1kT2sR\
        bZ7isUw8w";
    const RENEWED: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlA1VXBPdjBlTXExd2N4TGY3V3hJZzA5SmRTWUdZRkRPV2tsZHVlYUltZjAifQ.ey\
        JjZG5pZXRzIjozMCwiY2RuaXN0dCI6MSwiY2RuaXN0ZCI6MiwiZXhwIjoxNjQ2ODY3MzY5LCJjZG5pdWMiOiJyZWdleDpodHRwOi8vY2RuaVxcLmV4\
        YW1wbGUvZm9vL2Jhci9bMC05XXszfVxcLnRzIn0.tlPvoKw3BCClw4Lx9PQu7MK6b2IN55ZoCPSaxovGK0zS53Wpb1MbJBow7G8LiGR39h6-2Iq7P\
        WUSr3MdTIzHYw";

    /// The set's signing key.
    fn key(id: &str) -> PublicKey {
        let mut point = vec![4];
        for half in ["be807S4O7dzB6I4hTiCUvmxCI6FuxWba1xYBlLSSsZ8", "rOGC4vI69g-WF9AGEVI37sNNwbjIzBxSjLvIL7f3RBA"] {
            point.extend(decode(half).expect("base64url"));
        }
        PublicKey { bytes: point, ..p256(id) }
    }

    fn verify(jwt: &Jwt, target: &str, token: &str, now: u64) -> Result<Grant, Refused> {
        jwt.verify(&asked(&format!("{target}?URISigningPackage={token}")).presented(), now)
    }

    #[test]
    fn simple_example() {
        let jwt = with(&[], &[p256("other"), key(KID)]);
        let grant = Grant { id: "TaNlJM3D96i_9J9X".to_owned(), expires: Some(1_646_867_369) };
        assert_eq!(verify(&jwt, "/foo/bar", SIMPLE, 1_646_867_368), Ok(grant.clone()));
        assert_eq!(verify(&jwt, "/foo/bar", SIMPLE, 1_646_867_369), Err(Refused::Expired(1_646_867_369)));
        // Normalised, RFC 9246 §2.1.15.
        assert_eq!(verify(&jwt, "/x/../%66oo/./bar", SIMPLE, 0), Ok(grant));
        for target in ["/foo/baz", "/foo/bar/", "/foo//bar"] {
            assert!(matches!(verify(&jwt, target, SIMPLE, 0), Err(Refused::Elsewhere(_))), "{target}");
        }
        let request = asked(&format!("/foo/bar?a&URISigningPackage={SIMPLE}"));
        assert!(matches!(jwt.verify(&request.presented(), 0), Err(Refused::Elsewhere(_))));
        let secure = Request { secure: true, ..asked(&format!("/foo/bar?URISigningPackage={SIMPLE}")) };
        assert!(matches!(jwt.verify(&secure.presented(), 0), Err(Refused::Elsewhere(_))));
        // By another's name.
        assert_eq!(verify(&with(&[], &[key("other")]), "/foo/bar", SIMPLE, 0), Err(Refused::Mismatch));
        assert_eq!(verify(&with(&[], &[p256(KID)]), "/foo/bar", SIMPLE, 0), Err(Refused::Mismatch));
    }

    #[test]
    fn complex_example_has_an_encrypted_address() {
        let jwt = with(&[], &[key(KID)]);
        let refused = verify(&jwt, "/foo/bar/123.png", COMPLEX, 1_646_800_000);
        assert_eq!(refused, Err(Refused::Malformed("cdniip: the token is for an encrypted address")));
    }

    #[test]
    fn renewal_example_is_to_be_renewed() {
        let jwt = with(&[], &[key(KID)]);
        let refused = verify(&jwt, "/foo/bar/123.ts", RENEWED, 1_646_800_000);
        assert_eq!(refused, Err(Refused::Malformed("cdnistt: the token is to be renewed")));
    }
}

/// RFC 7515 appendix A.1: a token that is no CDN's.
#[test]
fn a_token_without_a_container_is_refused() {
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
        dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let jwt = with(&[&decode(key).expect("base64url")], &[]);
    let request = asked(&format!("/?URISigningPackage={token}"));
    let refused = jwt.verify(&request.presented(), 0);
    assert_eq!(refused, Err(Refused::Malformed("cdniuc: the token says not for which URLs it is")));
}

/// Each algorithm, with tokens of Python's `cryptography`.
#[test]
fn every_algorithm_verifies_what_others_have_signed_and_by_its_own_kind_of_key_alone() {
    let all = with(&[b"new", SECRET], &[rsa("rsa"), p256("p256"), p384("p384")]);
    let kinds = [
        ("HS", with(&[SECRET], &[])),
        ("RS PS", with(&[], &[rsa("rsa")])),
        ("ES256", with(&[], &[p256("p256")])),
        ("ES384", with(&[], &[p384("p384")])),
        // What is public is no secret, in whatever form.
        ("-", with(&[&rsa("rsa").bytes, &p256("p256").bytes, &p384("p384").bytes, b""], &[])),
    ];
    let mut seen = 0;
    for line in include_str!("vectors.txt").lines() {
        let (algorithm, token) = line.split_once(' ').expect("an algorithm and a token");
        let signature = token.rsplit_once('.').expect("a signature").1;
        let grant = Grant { id: signature[..16].to_owned(), expires: Some(1_646_867_369) };
        let request = asked(&format!("/foo/bar/123.png?URISigningPackage={token}"));
        assert_eq!(all.verify(&request.presented(), 0), Ok(grant), "{algorithm}");
        for (names, jwt) in &kinds {
            let holds = names.split(' ').any(|name| algorithm.starts_with(name));
            assert_eq!(jwt.verify(&request.presented(), 0).is_ok(), holds, "{algorithm} {names}");
        }
        seen += 1;
    }
    assert_eq!(seen, 11);
}

/// RFC 8725 §2.1.
#[test]
fn no_algorithm_is_no_signature() {
    let jwt = with(&[SECRET], &[rsa("rsa"), p256("p256")]);
    let claims = json!({ "cdniuc": "regex:.*" }).to_string();
    let rsa_text = "-----BEGIN PUBLIC KEY-----";
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS1"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"RS1"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"kid":"rsa"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":null}"#,
        "{}",
        "[]",
        "",
        rsa_text,
    ] {
        let request = asked(&format!("/?URISigningPackage={}", made(header, &claims)));
        assert!(matches!(jwt.verify(&request.presented(), 0), Err(Refused::Malformed(_))), "{header}");
        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(&claims));
        let request = asked(&format!("/?URISigningPackage={unsigned}"));
        assert!(matches!(jwt.verify(&request.presented(), 0), Err(Refused::Malformed(_))), "{header}");
    }
    for token in ["", ".", "..", "a.b", "a.b.c.d", "e30.e30.", "e30.e30.!", "a.b.c.d.e"] {
        let refused = jwt.verify(&asked(&format!("/?URISigningPackage={token}")).presented(), 0);
        assert!(matches!(refused, Err(Refused::Malformed(_) | Refused::Missing)), "{token}");
    }
    let long = made(r#"{"alg":"HS256"}"#, &json!({ "cdniuc": "regex:.*", "x": "x".repeat(LONGEST) }).to_string());
    let refused = jwt.verify(&asked(&format!("/?URISigningPackage={long}")).presented(), 0);
    assert_eq!(refused, Err(Refused::Malformed("the token is longer than 8 KiB")));
}

#[test]
fn a_token_may_be_in_the_query_the_path_or_a_cookie() {
    let jwt = with(&[SECRET], &[]);
    let token = claiming(&json!({ "cdniuc": r"regex:http://cdni\.example/foo/[^?]*\?a=1&b=2" }));
    for target in [
        format!("/foo/1.ts?URISigningPackage={token}&a=1&b=2"),
        format!("/foo/1.ts?a=1&URISigningPackage={token}&b=2"),
        format!("/foo/1.ts?a=1&b=2&URISigningPackage={token}"),
        format!("/foo/1.ts?a=1&b=2&URISigningPackage={}", token.replace('.', "%2E")),
        // RFC 9246 §2.1.15: a slash ends the token, and the one before it goes with it.
        format!("/URISigningPackage={token}/foo/1.ts?a=1&b=2"),
    ] {
        assert!(jwt.verify(&asked(&target).presented(), 0).is_ok(), "{target}");
    }
    let cookies = format!("a=b; URISigningPackage={token}");
    assert!(jwt.verify(&asked("/foo/1.ts?a=1&b=2").header("cookie", &cookies).presented(), 0).is_ok());
    assert_eq!(jwt.verify(&asked("/foo/1.ts?a=1&b=2").presented(), 0), Err(Refused::Missing));
    let places = jwt.places();
    assert_eq!(places.path_prefix.as_deref(), Some("URISigningPackage="));
    assert_eq!((places.parameters.len(), places.cookies.len(), places.fields.len()), (1, 1, 0));
}

#[test]
fn claims_that_are_not_understood_are_not_ignored() {
    let jwt = with(&[SECRET], &[]);
    assert!(verified(&jwt, &json!({ "cdniuc": IMAGES })).is_ok());
    for (name, value) in [
        ("cdniv", json!(1)),
        ("cdnistd", json!(0)),
        ("cdniets", json!(30)),
        ("iat", json!(2000)),
        ("sub", json!("eyJ..a.b")),
        ("anything", json!({ "else": [null] })),
    ] {
        assert!(verified(&jwt, &json!({ "cdniuc": IMAGES, name: value })).is_ok(), "{name}");
    }
    assert!(verified(&jwt, &json!({ "cdniuc": IMAGES, "cdnistt": 0, "cdniets": 30 })).is_ok());
    for (name, value) in [
        ("cdniuc", json!(null)),
        ("cdniuc", json!("")),
        ("cdniuc", json!("uri:http://cdni.example/foo/bar/123.png")),
        ("cdniuc", json!([IMAGES])),
        ("cdniv", json!(2)),
        ("cdniv", json!("1")),
        ("cdniv", json!(null)),
        ("cdnicrit", json!("cdnix")),
        ("cdnicrit", json!("")),
        ("cdnicrit", json!(null)),
        ("cdniip", json!("192.0.2.7/32")),
        ("cdniip", json!(null)),
        ("cdnistt", json!(0)),
        ("cdnistt", json!(1)),
        ("cdnistd", json!(-1)),
        ("exp", json!("2000")),
        ("exp", json!(null)),
        ("nbf", json!([1])),
        ("iat", json!("now")),
        ("jti", json!(1)),
        ("iss", json!(1)),
        ("aud", json!(1)),
    ] {
        let mut claims = json!({ "cdniuc": IMAGES });
        claims[name] = value.clone();
        assert!(matches!(verified(&jwt, &claims), Err(Refused::Malformed(_))), "{name} {value}");
    }
    let renewed = json!({ "cdniuc": IMAGES, "cdnistt": 2, "cdniets": 30 });
    assert_eq!(verified(&jwt, &renewed), Err(Refused::Malformed("cdnistt: the token is to be renewed")));
    for claims in ["", "[]", "{", "1", r#"{"cdniuc":"regex:.*","cdniuc":"regex:.*"}"#, &"[".repeat(3000)] {
        let request = asked(&format!("/?URISigningPackage={}", made(r#"{"alg":"HS256"}"#, claims)));
        assert!(matches!(jwt.verify(&request.presented(), 0), Err(Refused::Malformed(_))), "{claims}");
    }
}

/// RFC 9246 §2.1.4 and §2.1.5: at `exp` it is over, at `nbf` it holds, and no leeway but what the operator wants.
#[test]
fn times_are_to_the_second() {
    let exact = with(&[SECRET], &[]);
    let lenient = Jwt { terms: Terms { issuers: Vec::new(), audience: None, skew: 10 }, ..with(&[SECRET], &[]) };
    for (claim, value, strict, tolerant) in [
        ("exp", json!(1001), Ok(()), Ok(())),
        ("exp", json!(1000.5), Ok(()), Ok(())),
        ("exp", json!(1e3), Err(Refused::Expired(1000)), Ok(())),
        ("exp", json!(1000), Err(Refused::Expired(1000)), Ok(())),
        ("exp", json!(990), Err(Refused::Expired(990)), Err(Refused::Expired(990))),
        ("exp", json!(-1), Err(Refused::Expired(0)), Err(Refused::Expired(0))),
        ("exp", json!(1e300), Ok(()), Ok(())),
        ("exp", json!(u64::MAX), Ok(()), Ok(())),
        ("nbf", json!(1000), Ok(()), Ok(())),
        ("nbf", json!(1000.5), Err(Refused::NotYet(1001)), Ok(())),
        ("nbf", json!(1010), Err(Refused::NotYet(1010)), Ok(())),
        ("nbf", json!(1011), Err(Refused::NotYet(1011)), Err(Refused::NotYet(1011))),
    ] {
        let claims = json!({ "cdniuc": IMAGES, claim: value });
        assert_eq!(verified(&exact, &claims).map(drop), strict, "{claims}");
        assert_eq!(verified(&lenient, &claims).map(drop), tolerant, "{claims}");
    }
    assert_eq!(verified(&exact, &json!({ "cdniuc": IMAGES })).map(|grant| grant.expires), Ok(None));
}

#[test]
fn issuers_and_audiences_are_those_of_the_configuration() {
    let made = |issuers: &[&str], audience| {
        let issuers: Vec<_> = issuers.iter().map(|issuer| (*issuer).to_owned()).collect();
        Jwt::new(&[secret(SECRET)], &[], "URISigningPackage", &issuers, audience, Duration::ZERO).expect("no keys")
    };
    let (any, strict) = (made(&[], None), made(&["csp", "uCDN"], Some("edge")));
    for (claims, by_any, by_strict) in [
        (json!({}), true, false),
        (json!({ "iss": "who" }), true, false),
        (json!({ "aud": "edge" }), false, false),
        (json!({ "iss": "uCDN", "aud": "edge" }), false, true),
        (json!({ "iss": "uCDN", "aud": ["a", "edge"] }), false, true),
        (json!({ "iss": "uCDN", "aud": ["a"] }), false, false),
        (json!({ "iss": "uCDN", "aud": [] }), false, false),
        (json!({ "iss": "uCDN" }), true, false),
        (json!({ "iss": "ucdn", "aud": "edge" }), false, false),
    ] {
        let mut claims = claims;
        claims["cdniuc"] = json!(IMAGES);
        assert_eq!(verified(&any, &claims).is_ok(), by_any, "{claims}");
        assert_eq!(verified(&strict, &claims).is_ok(), by_strict, "{claims}");
    }
}

#[test]
fn an_id_names_the_token_where_it_can() {
    let jwt = with(&[SECRET], &[]);
    let id = |jti: &str| verified(&jwt, &json!({ "cdniuc": IMAGES, "jti": jti })).map(|grant| grant.id);
    assert_eq!(id("5DAafLhZAfhsbe").as_deref(), Ok("5DAafLhZAfhsbe"));
    for unfit in ["", "a b", "a\nb", "é", &"a".repeat(65)] {
        assert_eq!(id(unfit).map(|id| id.len()), Ok(16), "{unfit}");
    }
}

#[test]
fn a_pattern_is_for_no_path_that_leads_out_of_it() {
    let jwt = with(&[SECRET], &[]);
    let token = claiming(&json!({ "cdniuc": r"regex:http://cdni\.example/free/.*" }));
    for (path, holds) in [
        ("/free/a", true),
        ("/free/a/../b", true),
        ("/%66ree/a", true),
        ("/free/../paid/a", false),
        ("/free/%2e%2e/paid/a", false),
        ("/free/..%2fpaid/a", false),
        ("/free/..\\paid/a", false),
        ("/paid/a", false),
    ] {
        let request = asked(&format!("{path}?URISigningPackage={token}"));
        assert_eq!(jwt.verify(&request.presented(), 0).is_ok(), holds, "{path}");
    }
}

#[test]
fn what_is_signed_here_verifies_here() {
    let container = below("http://cdni.example/foo/").expect("a URL");
    for mac in [Mac::Hs256, Mac::Hs384, Mac::Hs512] {
        let stated = Stated {
            issuer: Some("csp"),
            audience: Some("edge"),
            expires: Some(1001),
            not_before: Some(999),
            issued_at: Some(999),
            id: Some("viewer \"7\""),
            container: &container,
        };
        let token = token(SECRET, mac, &stated);
        let issuers = ["csp".to_owned()];
        let secrets = [secret(b"newer"), secret(SECRET)];
        let jwt = Jwt::new(&secrets, &[], "t", &issuers, Some("edge"), Duration::ZERO).expect("no keys");
        let request = asked(&format!("/foo/a?b=c&t={token}"));
        assert_eq!(jwt.verify(&request.presented(), 1000).map(|grant| grant.expires), Ok(Some(1001)), "{mac:?}");
        assert_eq!(jwt.verify(&request.presented(), 1001), Err(Refused::Expired(1001)));
        let elsewhere = asked(&format!("/fou/a?t={token}"));
        assert!(matches!(jwt.verify(&elsewhere.presented(), 1000), Err(Refused::Elsewhere(_))));
    }
}

#[test]
fn keys_that_cannot_be_used_are_refused_at_once() {
    for key in [
        testing::key("a", PublicKeyKind::Rsa, "AAAA"),
        testing::key("a", PublicKeyKind::P256, "BAAA"),
        PublicKey { kind: PublicKeyKind::P384, ..p256("a") },
    ] {
        assert!(Jwt::new(&[], &[key], "t", &[], None, Duration::ZERO).is_err());
    }
}

#[test]
fn no_text_makes_it_panic_and_none_is_a_token() {
    let jwt = with(&[SECRET], &[rsa("rsa"), p256("p256")]);
    let token = prop_oneof![
        "\\PC{0,60}",
        "[A-Za-z0-9_.-]{0,120}",
        // Of the right form, and not signed.
        ("(HS256|RS256|ES256|PS512|.{0,4})", "\\PC{0,40}", "[A-Za-z0-9_-]{0,88}").prop_map(
            |(algorithm, claims, tag)| {
                let header = json!({ "alg": algorithm }).to_string();
                format!("{}.{}.{tag}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
            }
        ),
    ];
    proptest!(fuzz_cases(), |(token in token, in_path in any::<bool>(), other in "\\PC{0,20}")| {
        let mut request = Request::get(&format!("/{other}"));
        if in_path {
            request.in_path = Some(token);
        } else {
            request.query = Some(format!("{other}&URISigningPackage={token}"));
        }
        prop_assert!(jwt.verify(&request.presented(), 0).is_err());
    });
}

/// A byte of a whole target that is another one.
#[test]
fn nothing_that_has_been_changed_verifies() {
    let jwt = with(&[SECRET], &[]);
    let container = exactly("http://cdni.example/foo/1.ts?a=1").expect("a URL");
    let stated = Stated { expires: Some(9), container: &container, ..Stated::default() };
    let target = format!("/foo/1.ts?a=1&URISigningPackage={}", token(SECRET, Mac::Hs256, &stated));
    assert!(jwt.verify(&asked(&target).presented(), 1).is_ok());
    proptest!(fuzz_cases(), |(at in any::<prop::sample::Index>(), to in 0x21..0x7fu8)| {
        let mut bytes = target.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        let changed = String::from_utf8(bytes).expect("ASCII");
        prop_assume!(changed.starts_with('/'));
        prop_assert!(jwt.verify(&asked(&changed).presented(), 1).is_err(), "{}", changed);
    });
}

/// A signer may be wrong too: whatever is signed.
#[test]
fn no_claims_make_it_panic() {
    let jwt = with(&[SECRET], &[]);
    let sound =
        json!({ "cdniuc": IMAGES, "exp": 2000, "nbf": 1.5, "aud": ["a"], "jti": "x", "cdniets": 1 }).to_string();
    let claims = prop_oneof![
        "\\PC{0,60}",
        // Patterns, right and wrong.
        "[a-c.*+?()|{}0-9^$\\[\\]:-]{0,24}"
            .prop_map(|pattern| json!({ "cdniuc": format!("regex:{pattern}") }).to_string()),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(move |(at, to)| {
            let mut bytes = sound.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = to;
            String::from_utf8_lossy(&bytes).into_owned()
        }),
    ];
    proptest!(fuzz_cases(), |(claims in claims)| {
        let request = asked(&format!("/foo/bar/123.png?URISigningPackage={}", made(r#"{"alg":"HS256"}"#, &claims)));
        let _ = jwt.verify(&request.presented(), 1000);
    });
}
