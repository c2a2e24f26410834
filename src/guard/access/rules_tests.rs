//! Each rule by itself, and their order.

use http::Method;

use super::*;
use crate::config::model::{HostPattern, Referers};
use crate::guard::Visitor;

/// A request that can be changed.
struct Request {
    method: Method,
    path: &'static str,
    address: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    identities: Vec<String>,
    country: Option<[u8; 2]>,
    asn: Option<u32>,
}

fn request() -> Request {
    Request {
        method: Method::GET,
        path: "/",
        address: "192.0.2.1",
        headers: Vec::new(),
        identities: Vec::new(),
        country: None,
        asn: None,
    }
}

fn rules() -> model::Access {
    model::Access { status: StatusCode::FORBIDDEN, ..model::Access::default() }
}

fn check(rules: model::Access, request: &Request) -> Result<(), Denied> {
    let access = Access::new(&Arc::new(rules), &Lists::default()).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        headers.append(*name, value.parse().unwrap());
    }
    access.check(&Asked {
        method: &request.method,
        host: "a.test",
        path: request.path,
        headers: &headers,
        visitor: Visitor {
            address: request.address.parse().unwrap(),
            secure: false,
            identities: &request.identities,
            country: request.country,
            asn: request.asn,
        },
    })
}

/// The reason; `None`: it is let in.
fn why(rules: model::Access, request: &Request) -> Option<String> {
    check(rules, request).err().map(|denied| {
        assert_eq!(denied.status, StatusCode::FORBIDDEN);
        denied.reason
    })
}

fn networks(list: &[&str]) -> Vec<Networks> {
    vec![Networks::These(list.iter().map(|net| net.parse().unwrap()).collect())]
}

#[test]
fn what_is_denied_is_denied_whatever_is_allowed() {
    let both = || model::Access { allow: networks(&["10.0.0.0/8"]), deny: networks(&["10.1.0.0/16"]), ..rules() };
    let from = |address| why(both(), &Request { address, ..request() });
    assert_eq!(from("10.2.0.1"), None);
    assert_eq!(from("::ffff:10.2.0.1"), None);
    assert_eq!(from("10.1.0.1").as_deref(), Some("access.deny: 10.1.0.1"));
    assert_eq!(from("192.0.2.1").as_deref(), Some("access.allow: 192.0.2.1 is not in it"));
    let deny = || model::Access { deny: networks(&["10.1.0.0/16"]), ..rules() };
    assert_eq!(why(deny(), &request()), None);
    // An empty list is one, of nobody.
    let nobody = model::Access { allow: networks(&[]), ..rules() };
    assert!(why(nobody, &request()).is_some());
    assert_eq!(why(rules(), &request()), None);
}

#[test]
fn a_list_that_has_not_been_read_is_an_error() {
    let rules = model::Access { deny: vec![Networks::File("/a".into())], ..rules() };
    assert!(Access::new(&Arc::new(rules), &Lists::default()).err().unwrap().contains("/a has not been read"));
}

#[test]
fn places_that_are_not_known_are_in_no_list() {
    let of = |allow: &[[u8; 2]], deny: &[[u8; 2]], country| {
        let rules = model::Access { allow_countries: allow.to_vec(), deny_countries: deny.to_vec(), ..rules() };
        why(rules, &Request { country, ..request() })
    };
    assert_eq!(of(&[*b"DE"], &[], Some(*b"DE")), None);
    assert_eq!(of(&[*b"DE"], &[], Some(*b"FR")).as_deref(), Some("access.allow_countries: FR is not in it"));
    assert_eq!(of(&[*b"DE"], &[], None).as_deref(), Some("access.allow_countries: no country is not in it"));
    assert_eq!(of(&[*b"DE"], &[*b"DE"], Some(*b"DE")).as_deref(), Some("access.deny_countries: DE"));
    assert_eq!(of(&[], &[*b"DE"], None), None);
    let of = |allow: &[u32], deny: &[u32], asn| {
        let rules = model::Access { allow_asns: allow.to_vec(), deny_asns: deny.to_vec(), ..rules() };
        why(rules, &Request { asn, ..request() })
    };
    assert_eq!((of(&[1], &[2], Some(1)), of(&[], &[2], None)), (None, None));
    assert_eq!(of(&[], &[2], Some(2)).as_deref(), Some("access.deny_asns: 2"));
    assert_eq!(of(&[1], &[], Some(3)).as_deref(), Some("access.allow_asns: 3 is not in it"));
}

#[test]
fn one_name_of_the_certificate_is_enough() {
    let of = |names: &[&str]| {
        let listed = ["*.partners.example", "ops@example.com"];
        let rules = model::Access { identities: listed.map(str::to_owned).to_vec(), ..rules() };
        why(rules, &Request { identities: names.iter().map(|name| (*name).to_owned()).collect(), ..request() })
    };
    assert_eq!((of(&["x", "a.partners.example"]), of(&["ops@example.com"])), (None, None));
    assert_eq!(of(&[]).as_deref(), Some("access.identities: there is no client certificate"));
    assert_eq!(
        of(&[".partners.example", "x"]).as_deref(),
        Some("access.identities: \".partners.example\" is none of them")
    );
    assert!(of(&["partners.example"]).is_some() && of(&["a.partners.example.evil.test"]).is_some());
    let anyone = model::Access { identities: vec!["*".to_owned()], ..rules() };
    assert_eq!(why(anyone, &Request { identities: vec!["x".to_owned()], ..request() }), None);
}

#[test]
fn methods_have_a_status_of_their_own() {
    let get = || model::Access { methods: vec!["GET".to_owned(), "POST".to_owned()], ..rules() };
    assert_eq!(check(get(), &Request { method: Method::HEAD, ..request() }), Ok(()));
    let denied = check(get(), &Request { method: Method::DELETE, ..request() }).unwrap_err();
    assert_eq!((denied.status.as_u16(), &*denied.reason), (405, "access.methods: \"DELETE\" is not in it"));
    let methods = |rules| Access::new(&Arc::new(rules), &Lists::default()).unwrap().methods().to_owned();
    assert_eq!((&*methods(get()), &*methods(rules())), ("GET, HEAD, POST", ""));
}

#[test]
fn fields_and_paths() {
    let wanted = |value| model::Access { headers: vec![("x-key".to_owned(), value)], ..rules() };
    let with = |headers| Request { headers, ..request() };
    let equals = || wanted(ValueMatch::Equals("open".to_owned()));
    assert_eq!(why(equals(), &with(vec![("x-key", "no"), ("x-key", "open")])), None);
    for wrong in [vec![], vec![("x-key", "opem")], vec![("x-key", "open ")], vec![("x-key", "ope")]] {
        let reason = why(equals(), &with(wrong.clone()));
        let trimmed = wrong.iter().any(|(_, value)| *value == "open ");
        // The value is in no reason.
        assert!(trimmed || reason.as_deref() == Some("access.headers: x-key is not as it must be"), "{wrong:?}");
    }
    assert!(why(wanted(ValueMatch::Absent), &with(vec![("x-key", "")])).is_some());
    assert_eq!(why(wanted(ValueMatch::Present), &with(vec![("x-key", "")])), None);
    let admin = || model::Access { deny_paths: vec![PathPattern::parse("/admin/**").unwrap()], ..rules() };
    let path = |path| why(admin(), &Request { path, ..request() });
    assert_eq!(path("/admin/a").as_deref(), Some("access.deny_paths: /admin/**"));
    assert!(path("//admin///a").is_some() && path("/admin//").is_some());
    for read in ["/admin%2Fa", "/admin;v=1/a", "/admin\\a", "/x/..%2Fadmin/a", "/x/..;/admin/a"] {
        assert!(path(read).is_some(), "{read}");
    }
    assert_eq!((path("/admin"), path("/a//dmin/b"), path("/x/admin/")), (None, None, None));
}

#[test]
fn agents_and_referers() {
    let agents = || model::Access { deny_user_agents: vec!["*curl*".to_owned(), String::new()], ..rules() };
    let agent = |lines: &[&'static str]| {
        why(agents(), &Request { headers: lines.iter().map(|line| ("user-agent", *line)).collect(), ..request() })
    };
    assert_eq!(agent(&["Mozilla/5.0"]), None);
    assert_eq!(agent(&["libcURL/8"]).as_deref(), Some("access.deny_user_agents: *curl*"));
    assert!(agent(&["Mozilla/5.0", "curl"]).is_some());
    assert_eq!(
        (agent(&[]).as_deref(), agent(&[""]).as_deref()),
        (Some("access.deny_user_agents: "), Some("access.deny_user_agents: "))
    );
    let hosts = || vec![HostPattern::Exact("example.com".to_owned())];
    let referer = |none, lines: &[&'static str]| {
        let rules = model::Access { referers: Some(Referers { hosts: hosts(), none }), ..rules() };
        why(rules, &Request { headers: lines.iter().map(|line| ("referer", *line)).collect(), ..request() })
    };
    assert_eq!((referer(false, &["https://example.com/"]), referer(true, &[])), (None, None));
    assert_eq!(referer(false, &[]).as_deref(), Some("access.referers: there is none"));
    assert_eq!(referer(true, &["https://evil.test/"]).as_deref(), Some("access.referers: another host"));
    assert!(referer(true, &["https://example.com/", "https://evil.test/"]).is_some());
}

/// Figures: FORELAND_FIGURES=1 cargo test -- --nocapture rules_take_little
#[test]
fn rules_take_little() {
    let count = if std::env::var_os("FORELAND_FIGURES").is_some() { 1_000_000 } else { 100 };
    let list = (0..200u32).map(|n| ipnet::Ipv4Net::new((n << 24 | n << 8).into(), 24).unwrap().into()).collect();
    let rules = model::Access {
        deny: vec![Networks::These(list)],
        deny_user_agents: ["*bot*", "*spider*", "curl/*", "wget/*"].map(str::to_owned).to_vec(),
        ..rules()
    };
    let access = Access::new(&Arc::new(rules), &Lists::default()).unwrap();
    let mut headers = HeaderMap::new();
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";
    headers.insert("user-agent", agent.parse().unwrap());
    let began = std::time::Instant::now();
    for n in 0..count {
        let visitor = Visitor::of(IpAddr::V4((0xc000_0200 + (n & 255)).into()));
        let asked = Asked { method: &Method::GET, host: "a.test", path: "/a", headers: &headers, visitor };
        assert_eq!(access.check(&asked), Ok(()));
    }
    println!("{:?} a request", began.elapsed() / count);
}
