use proptest::prelude::*;

use super::*;
use crate::guard::signed::sign::Place;
use crate::guard::signed::testing::{Request, fuzz_cases};

const NOW: u64 = 1_767_286_800;

fn secret(text: &str) -> Secret {
    Secret(text.as_bytes().to_vec(), String::new())
}

fn key(secrets: &[&str]) -> Cloudflare {
    let secrets: Vec<_> = secrets.iter().map(|text| secret(text)).collect();
    Cloudflare::new(&secrets, "verify", 10_800, 0)
}

fn wish(path: &str) -> Wish<'_> {
    Wish {
        secure: true,
        authority: "cdn.example",
        path,
        query: None,
        now: NOW,
        expires: None,
        not_before: None,
        client: None,
        prefix: None,
        methods: &[],
        parameters: &[],
        id: None,
        place: Place::Query,
    }
}

fn signed(wish: &Wish<'_>) -> Result<String, CannotSign> {
    match sign(&[secret("s")], "verify", 10_800, wish)? {
        Signed::Target(target) => Ok(target),
        other => panic!("{other:?}"),
    }
}

fn verify(target: &str, now: u64) -> Result<Grant, Refused> {
    key(&["new", "s"]).verify(&Request::target(target, None).presented(), now)
}

/// https://cloudflare-hmac.pages.dev/posts/hmac_validation, by Cloudflare's S. Nouvellon; its secret is "cloudflare".
#[test]
fn a_published_url() {
    let key = key(&["cloudflare"]);
    let verify = |target: &str, now| key.verify(&Request::target(target, None).presented(), now);
    let target = "/tokenauth/kayak.mp4?verify=1657026353-ZXJWAyFwAgJSY%2B5j3CkJE80TatA33E3MEH4D%2FkSnh7M%3D";
    let grant = verify(target, 1_657_026_353).expect("a grant");
    assert_eq!(grant, Grant { id: "ZXJWAyFw".to_owned(), expires: Some(1_657_026_353 + 10_799) });
    // Valid while now < issued + lifetime.
    assert!(verify(target, 1_657_026_353 + 10_799).is_ok());
    assert_eq!(verify(target, 1_657_026_353 + 10_800), Err(Refused::Expired(1_657_026_353 + 10_799)));
    // In the other alphabet, or not encoded.
    for mac in ["ZXJWAyFwAgJSY-5j3CkJE80TatA33E3MEH4D_kSnh7M", "ZXJWAyFwAgJSY+5j3CkJE80TatA33E3MEH4D/kSnh7M="] {
        assert!(verify(&format!("/tokenauth/kayak.mp4?verify=1657026353-{mac}"), 1_657_026_353).is_ok(), "{mac}");
    }
    assert_eq!(verify(&target.replace("kayak", "canoe"), 1_657_026_353), Err(Refused::Mismatch));
    assert_eq!(verify(&target.replace("6353-", "6354-"), 1_657_026_353), Err(Refused::Mismatch));
    let wish = Wish { expires: Some(1_657_026_353 + 10_799), now: 1_657_026_353, ..wish("/tokenauth/kayak.mp4") };
    let made = sign(&[secret("cloudflare")], "verify", 10_800, &wish);
    assert_eq!(made, Ok(Signed::Target(target.to_owned())));
}

#[test]
fn what_stands_before_the_token_is_signed() {
    let target = signed(&Wish { query: Some("w=1&h=2"), ..wish("/a") }).expect("a target");
    assert!(target.starts_with("/a?w=1&h=2&verify=1767286800-"));
    assert!(verify(&target, NOW).is_ok());
    assert_eq!(verify(&target.replace("w=1", "w=2"), NOW), Err(Refused::Mismatch));
    assert_eq!(verify(&target.replace("w=1&", ""), NOW), Err(Refused::Mismatch));
    let last = Err(Refused::Malformed("the token is not the last parameter"));
    assert_eq!(verify(&format!("{target}&x=1"), NOW), last);
    assert_eq!(verify(&target.replace("&verify", "&%76erify"), NOW), last);
    assert_eq!(verify("/a?w=1", NOW), Err(Refused::Missing));
    assert!(matches!(verify(&format!("{target}&verify=x"), NOW), Err(Refused::Malformed(_))));
}

#[test]
fn a_token_that_is_none() {
    for token in ["", "-", "1767286800", "1767286800-", "176728680-AAAA", "17672868000-AAAA", "176728680x-AAAA", "%ff"]
    {
        assert!(matches!(verify(&format!("/a?verify={token}"), NOW), Err(Refused::Malformed(_))), "{token}");
    }
    let mac = "A".repeat(43);
    assert_eq!(verify(&format!("/a?verify=1767286800-{mac}"), NOW), Err(Refused::Mismatch));
    for mac in ["A".repeat(42), "A".repeat(44), "A".repeat(42) + "B", "A".repeat(41) + "-/"] {
        assert!(matches!(verify(&format!("/a?verify=1767286800-{mac}"), NOW), Err(Refused::Malformed(_))), "{mac}");
    }
}

#[test]
fn a_token_ends_no_later_than_its_lifetime() {
    let ending = |expires| signed(&Wish { expires: Some(expires), ..wish("/a") });
    let target = ending(NOW + 59).expect("a target");
    assert!(verify(&target, NOW + 59).is_ok());
    assert_eq!(verify(&target, NOW + 60), Err(Refused::Expired(NOW + 59)));
    assert!(matches!(ending(NOW + 10_800), Err(CannotSign::Value(Part::Expires, _))));
    assert!(matches!(ending(5), Err(CannotSign::Value(Part::Expires, _))));
    assert!(matches!(ending(u64::MAX), Err(CannotSign::Value(Part::Expires, _))));
    let id = signed(&Wish { id: Some("a"), ..wish("/a") });
    assert_eq!(id, Err(CannotSign::Unsupported("cloudflare", Part::Id)));
}

proptest! {
    #![proptest_config(fuzz_cases())]

    #[test]
    fn nothing_mutated_verifies(path in "/[a-z/.]{0,8}", query in prop::option::of("[a-z=&]{1,8}"),
        at in any::<prop::sample::Index>(), byte in b' '..=b'~', kind in 0..3) {
        let target = signed(&Wish { query: query.as_deref(), ..wish(&path) }).expect("a target");
        prop_assume!(!query.as_deref().is_some_and(|query| query.contains("verify")));
        prop_assert!(verify(&target, NOW).is_ok(), "{target}");
        let mut bytes = target.clone().into_bytes();
        let at = at.index(bytes.len());
        match kind {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
        let mutated = String::from_utf8(bytes).expect("text");
        // Another spelling of the same signature, and no padding, are the same.
        let same = |target: &str| {
            let (before, mac) = target.rsplit_once("verify=").unwrap_or((target, ""));
            let mac = plain(mac).unwrap_or_default().replace('+', "-").replace('/', "_");
            (before.to_owned(), mac.trim_end_matches('=').to_owned())
        };
        prop_assume!(same(&mutated) != same(&target));
        // An empty query is as none.
        prop_assume!(mutated.replacen("?&", "?", 1) != target);
        prop_assert!(verify(&mutated, NOW).is_err(), "{target} {mutated}");
    }

    #[test]
    fn no_request_panics_or_verifies(path in "\\PC{0,30}", query in "(verify=|&|[0-9]{10}-|[0-9A-Za-z_%/+-]{0,46}|\\PC){0,6}") {
        let request = Request::get(&path).query(&query);
        prop_assert!(key(&["s"]).verify(&request.presented(), NOW).is_err());
    }
}
