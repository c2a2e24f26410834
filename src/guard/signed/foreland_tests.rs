use proptest::prelude::*;

use super::*;
use crate::guard::signed::sign::Place;
use crate::guard::signed::testing::{Request, fuzz_cases};

const NOW: u64 = 1_767_286_800;
const END: u64 = NOW + 3600;
const PREFIX: Option<&str> = Some("token=");

fn secret(text: &str) -> Secret {
    Secret(text.as_bytes().to_vec(), String::new())
}

fn key(secrets: &[&str]) -> Foreland {
    Foreland::new(&secrets.iter().map(|text| secret(text)).collect::<Vec<_>>(), "token", 0)
}

fn wish(path: &str) -> Wish<'_> {
    Wish {
        secure: true,
        authority: "cdn.example",
        path,
        query: None,
        now: NOW,
        expires: Some(END),
        not_before: None,
        client: None,
        prefix: None,
        methods: &[],
        parameters: &[],
        id: None,
        place: Place::Query,
    }
}

fn signed(wish: &Wish<'_>) -> String {
    match sign(&[secret("k1")], "token", wish).expect("a signature") {
        Signed::Target(target) => target,
        Signed::Cookie(cookie) => cookie,
    }
}

fn ask(target: &str) -> Request {
    Request::target(target, PREFIX)
}

fn verified(request: &Request) -> Result<Grant, Refused> {
    key(&["k1"]).verify(&request.presented(), NOW)
}

/// docs/signed-urls.md has these: whoever writes a signer compares with them. Made with openssl.
#[test]
fn the_documented_vectors() {
    let secret = [secret("correct horse battery staple")];
    let target = |wish: &Wish<'_>| match sign(&secret, "token", wish) {
        Ok(Signed::Target(target)) => target,
        other => panic!("{other:?}"),
    };
    let exact = Wish { expires: Some(1_767_290_400), ..wish("/video/a.mp4") };
    assert_eq!(target(&exact), "/video/a.mp4?token=exp=1767290400~mac=TRDrAQVHE2ghKhUu5QgmLQ");
    let folder = Wish { prefix: Some("/video/abc/"), place: Place::Path, ..wish("/video/abc/master.m3u8") };
    assert_eq!(
        target(&Wish { expires: Some(1_767_290_400), ..folder }),
        "/token=exp=1767290400~p=2~mac=gRUKX_bQveqpSsrhiNHjig/video/abc/master.m3u8"
    );
    let all = Wish {
        expires: Some(1_767_290_400),
        not_before: Some(1_767_286_800),
        client: Some("192.0.2.7/24".parse().expect("a network")),
        methods: &[Method::GET, Method::POST],
        parameters: &["w".to_owned(), "h".to_owned()],
        id: Some("order-17"),
        query: Some("h=2&x=3&w=%61%2f"),
        ..wish("/a%2fb/%41")
    };
    assert_eq!(
        target(&all),
        "/a%2fb/%41?h=2&x=3&w=%61%2f&token=exp=1767290400~nbf=1767286800~ip=192.0.2.0_24~m=GET,POST~q=w,h~id=order-17\
         ~mac=_aKJ7Z8D7cjPoUca0OtEng"
    );
}

#[test]
fn a_token_is_for_one_path_of_one_host() {
    let target = signed(&wish("/video/a.mp4"));
    let request = ask(&target);
    let grant = verified(&request).expect("a grant");
    assert_eq!((grant.id.len(), grant.expires), (SHOWN, Some(END)));
    assert!(target.contains(&format!("~mac={}", grant.id)));
    let elsewhere = Request { authority: "other.example".to_owned(), ..request.clone() };
    assert_eq!(verified(&elsewhere), Err(Refused::Mismatch));
    for path in ["/video/a.mp4/", "/video/b.mp4", "/video/a%2Fmp4", "/Video/a.mp4", "/video//a.mp4", "/"] {
        assert_eq!(verified(&Request { path: path.to_owned(), ..request.clone() }), Err(Refused::Mismatch), "{path}");
    }
    // What is the same to the key is the same to the signature.
    for path in ["/video/%61.mp4", "/x/../video/./a.mp4", "/%76ideo/a%2emp4"] {
        assert!(verified(&Request { path: path.to_owned(), ..request.clone() }).is_ok(), "{path}");
    }
    assert_eq!(verified(&Request { query: None, ..request.clone() }), Err(Refused::Missing));
    // Other parameters are not signed unless the token says so.
    assert!(verified(&ask(&format!("{target}&x=1"))).is_ok());
}

#[test]
fn a_prefix_is_for_a_folder_and_all_below() {
    let folder = Wish { prefix: Some("/video/abc/"), ..wish("/video/abc/master.m3u8") };
    let in_path = signed(&Wish { place: Place::Path, ..folder.clone() });
    let root = in_path.strip_suffix("master.m3u8").expect("a suffix");
    for path in ["master.m3u8", "", "1080p/seg-1.ts", "a//b", "x/../y", "a%20b;c=d"] {
        assert!(verified(&ask(&format!("{root}{path}"))).is_ok(), "{path}");
    }
    let climbing = Err(Refused::Elsewhere("the path could be read as one outside of the prefix"));
    for (path, expected) in [
        ("../other/a", Err(Refused::Mismatch)),
        ("%2e%2e/other/a", Err(Refused::Mismatch)),
        ("../abcd/a", Err(Refused::Mismatch)),
        ("../../../../a", Err(Refused::Elsewhere("the path is shorter than the prefix"))),
        ("..%2fother/a", climbing.clone()),
        ("..\\other", climbing.clone()),
        ("..;/other/a", climbing.clone()),
    ] {
        assert_eq!(verified(&ask(&format!("{root}{path}"))), expected, "{path}");
    }
    let root = signed(&Wish { prefix: Some("/"), place: Place::Path, ..wish("/video/a") });
    assert!(root.contains("~p=0~") && verified(&ask(&root)).is_ok());
    let token = signed(&folder).split_once("token=").map(|(_, token)| token.to_owned()).expect("a token");
    let cookie = ask("/video/abc/seg-1.ts").header("cookie", &format!("a=b; token={token}"));
    assert!(verified(&cookie).is_ok());
}

#[test]
fn a_token_that_holds_may_stand_beside_one_that_does_not() {
    let good = signed(&wish("/a")).split_once("token=").map(|(_, token)| token.to_owned()).expect("a token");
    let bad = signed(&wish("/b")).split_once("token=").map(|(_, token)| token.to_owned()).expect("a token");
    let both = ask("/a").header("cookie", &format!("token={bad}; token={good}"));
    assert!(verified(&both).is_ok());
    assert_eq!(verified(&ask("/a").header("cookie", &format!("token={bad}; token=x"))), Err(Refused::Mismatch));
}

#[test]
fn time_method_and_address() {
    let key = |skew| Foreland::new(&[secret("k1")], "token", skew);
    let begins = Wish { not_before: Some(NOW), ..wish("/a") };
    let request = ask(&signed(&begins));
    let at = |now, skew| key(skew).verify(&request.presented(), now).map(|_| ());
    assert_eq!(at(NOW - 1, 0), Err(Refused::NotYet(NOW)));
    assert_eq!((at(NOW, 0), at(NOW - 5, 5), at(END, 0), at(END + 5, 5)), (Ok(()), Ok(()), Ok(()), Ok(())));
    assert_eq!(at(NOW - 6, 5), Err(Refused::NotYet(NOW)));
    assert_eq!((at(END + 1, 0), at(END + 6, 5)), (Err(Refused::Expired(END)), Err(Refused::Expired(END))));
    assert_eq!(at(u64::MAX, u64::MAX), Ok(()));

    let by = |request: &Request, method| verified(&Request { method, ..request.clone() }).is_ok();
    let plain = ask(&signed(&wish("/a")));
    assert!(by(&plain, Method::GET) && by(&plain, Method::HEAD) && !by(&plain, Method::POST));
    let upload = ask(&signed(&Wish { methods: &[Method::POST, Method::PUT], ..wish("/a") }));
    assert!(by(&upload, Method::POST) && by(&upload, Method::PUT));
    assert!(!by(&upload, Method::GET) && !by(&upload, Method::HEAD) && !by(&upload, Method::DELETE));

    let from = |network: &str, client: &str| {
        let client_network: IpNet = network.parse().expect("a network");
        let request = ask(&signed(&Wish { client: Some(client_network), ..wish("/a") }));
        verified(&request.client(client)).map(|_| ())
    };
    let other = Err(Refused::Elsewhere("the token is for another address"));
    assert_eq!((from("192.0.2.7/32", "192.0.2.7"), from("192.0.2.7/32", "192.0.2.8")), (Ok(()), other.clone()));
    assert_eq!((from("192.0.2.7/24", "192.0.2.8"), from("192.0.2.7/24", "192.0.3.8")), (Ok(()), other.clone()));
    assert_eq!((from("2001:db8::1/48", "2001:db8:0:7::9"), from("2001:db8::1/48", "192.0.2.7")), (Ok(()), other));
}

#[test]
fn parameters_are_bound_where_they_are_named() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let some = names(&["w", "h"]);
    let target = signed(&Wish { query: Some("w=1&x=2&h=3"), parameters: &some, ..wish("/a") });
    let (_, token) = target.split_once("&token=").expect("a token");
    let with = |query: &str| verified(&ask(&format!("/a?{query}token={token}"))).is_ok();
    assert!(with("w=1&x=2&h=3&") && with("h=3&w=1&") && with("%77=%31&h=3&y&"));
    for other in ["", "w=1&", "h=3&", "w=1&h=4&", "w=1&w=1&h=3&", "w=1&h=3&h=9&", "w=1&h=3&%68=9&", "w=1&h&"] {
        assert!(!with(other), "{other}");
    }
    let target = signed(&Wish { query: Some("w=1&x=2"), parameters: &names(&["*"]), ..wish("/a") });
    let (_, token) = target.split_once("&token=").expect("a token");
    let with = |query: &str| verified(&ask(&format!("/a?{query}token={token}"))).is_ok();
    assert!(with("w=1&x=2&") && with("%77=1&x=2&"));
    assert!(!with("w=1&") && !with("") && !with("x=2&w=1&") && !with("w=1&x=2&y&"));
    let none = signed(&Wish { parameters: &some, ..wish("/a") });
    assert!(verified(&ask(&none)).is_ok() && verified(&ask(&format!("{none}&x"))).is_ok());
    assert!(verified(&ask(&format!("{none}&w="))).is_err());
}

#[test]
fn a_new_secret_comes_first_and_the_old_one_still_verifies() {
    let request = ask(&signed(&wish("/a")));
    assert!(key(&["new", "k1"]).verify(&request.presented(), NOW).is_ok());
    assert_eq!(key(&["new", "other"]).verify(&request.presented(), NOW), Err(Refused::Mismatch));
}

#[test]
fn claims_are_read_to_the_letter() {
    let mac = "A".repeat(22);
    let read = |claims: &str| Claims::read(&format!("{claims}~mac={mac}")).map(|_| ());
    for right in [
        "exp=1",
        "exp=1~nbf=0~ip=::1~m=GET~p=0~q=*~id=a",
        "exp=1~ip=10.0.0.0_8",
        "exp=1~ip=2001:db8::_32~m=M-SEARCH",
        "exp=1~q=a.b,c_d,e-f",
    ] {
        assert_eq!(read(right), Ok(()), "{right}");
    }
    for wrong in [
        "",
        "exp",
        "exp=",
        "exp=-1",
        "exp=1~exp=2",
        "nbf=1~exp=1",
        "exp=1~",
        "~exp=1",
        "exp=1~x=1",
        "exp=1~id=",
        "exp=1~id=a b",
        "exp=1~p=",
        "exp=1~p=1000",
        "exp=1~p=+1",
        "exp=1~m=",
        "exp=1~m=get",
        "exp=1~m=GET,",
        "exp=1~q=",
        "exp=1~q=a,,b",
        "exp=1~q=*,a",
        "exp=1~ip=",
        "exp=1~ip=10.0.0.0_33",
        "exp=1~ip=10.0.0.0/8",
        "exp=1~q=a~p=1",
        "EXP=1",
        "exp=1~mac=x",
        "exp=9999999999999",
        "exp=1~q=a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    assert!(Claims::read(&format!("exp=1~mac={}", "a".repeat(LONGEST))).is_err());
    assert!(Claims::read("exp=1").is_err());
}

#[test]
fn a_token_may_be_encoded() {
    let target = signed(&wish("/a")).replace('~', "%7E").replacen("exp=", "exp%3d", 1);
    assert!(verified(&ask(&target)).is_ok());
    assert!(verified(&ask("/a?token=%ff")).is_err());
}

#[test]
fn what_cannot_be_said_is_not_signed() {
    let sign = |wish: Wish<'_>| sign(&[secret("k")], "token", &wish);
    assert_eq!(sign(Wish { expires: None, ..wish("/a") }), Err(CannotSign::Needs(Part::Expires)));
    let bad = ["a b".to_owned()];
    assert!(matches!(sign(Wish { parameters: &bad, ..wish("/a") }), Err(CannotSign::Value(Part::Parameters, _))));
    let own = ["token".to_owned()];
    assert!(matches!(sign(Wish { parameters: &own, ..wish("/a") }), Err(CannotSign::Value(Part::Parameters, _))));
    assert!(matches!(sign(Wish { id: Some("a~b"), ..wish("/a") }), Err(CannotSign::Value(Part::Id, _))));
    assert!(matches!(sign(Wish { prefix: Some("/%61/"), ..wish("/%61/b") }), Err(CannotSign::Value(Part::Prefix, _))));
    assert!(matches!(sign(Wish { prefix: Some("/a/"), ..wish("/a/..%2fb") }), Err(CannotSign::Impossible(_))));
}

/// A request's target with a token, and where the token is in it.
fn target() -> impl Strategy<Value = String> {
    let path = prop::collection::vec("[a-z%;.]{0,4}", 0..4).prop_map(|segments| format!("/{}", segments.join("/")));
    (path, prop::option::of("[a-c=&%1]{0,12}"), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(path, query, folder, parameters, in_path)| {
            let place = if in_path { Place::Path } else { Place::Query };
            let parameters: &[String] = if parameters { &["a".to_owned(), "b".to_owned()] } else { &[] };
            let prefix = folder.then(|| path.get(..=path.rfind('/').unwrap_or(0)).unwrap_or("/"));
            let wish = Wish { query: query.as_deref(), parameters, place, prefix, ..wish(&path) };
            match sign(&[secret("k1")], "token", &wish)
                .or_else(|_| sign(&[secret("k1")], "token", &Wish { prefix: None, ..wish }))
            {
                Ok(Signed::Target(target)) => target,
                other => panic!("{other:?}"),
            }
        },
    )
}

proptest! {
    #![proptest_config(fuzz_cases())]

    /// A byte of the token more, less or changed, and it holds no more.
    #[test]
    fn nothing_mutated_verifies(target in target(), at in any::<prop::sample::Index>(), byte in any::<u8>(), kind in 0..3) {
        let request = ask(&target);
        prop_assert!(verified(&request).is_ok(), "{target}");
        let token = match &request.in_path {
            Some(token) => token.clone(),
            None => find::values(request.query.as_deref(), "token").last().expect("a token").to_owned(),
        };
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        match kind {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
        let Ok(mutated) = String::from_utf8(bytes) else { return Ok(()) };
        // Another spelling of the same token is the same token.
        prop_assume!(plain(&mutated).as_deref() != Some(&*token) && !mutated.contains(['&', '/']));
        let bare = Request { in_path: Some(mutated), query: None, ..request };
        prop_assert!(verified(&bare).is_err(), "{target}");
    }

    #[test]
    fn no_token_panics_or_verifies(token in "(exp=[0-9]{0,11})?(~(nbf|ip|m|p|q|id|mac)=[0-9A-Za-z.:,_*%-]{0,24}){0,5}|\\PC{0,60}",
        path in "(/[a-z.%;\\\\]{0,5}){0,4}", query in prop::option::of("[a-z=&%]{0,12}")) {
        let request = Request { in_path: Some(token), query, ..Request::get(&path) };
        prop_assert!(verified(&request).is_err());
    }

    /// Whatever a path is made of: what a folder's token lets in is in the folder, for the edge and for who decodes twice.
    #[test]
    fn nothing_leads_out_of_a_folder(rest in "(\\.|/|%2[ef]|%2[EF]|%5c|\\\\|;|[ab]|\\.\\./){0,10}") {
        let folder = Wish { prefix: Some("/video/abc/"), place: Place::Path, ..wish("/video/abc/") };
        let request = ask(&(signed(&folder) + &rest));
        let path = normalise_path(&request.path).into_owned();
        if verified(&request).is_ok() {
            prop_assert!(path.starts_with("/video/abc/"), "{path}");
            let plainly = path.replace("%2F", "/").replace("%5C", "/").replace('\\', "/").replace("..;", "../");
            prop_assert!(!plainly.split('/').any(|segment| segment == ".."), "{path}");
        } else {
            prop_assert!(!path.starts_with("/video/abc/") || path.contains(".."), "{path}");
        }
    }
}
