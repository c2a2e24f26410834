//! Who and what is let in: addresses, lists, countries, methods, fields, paths, agents and referers.

use rustix::process::Signal;

use super::harness::{Ask, Edge, Origin, Reply};

#[path = "../../src/guard/access/mmdb_writer.rs"]
#[allow(dead_code, reason = "shared with the unit tests, which write more of it")]
pub(super) mod mmdb_writer;

use mmdb_writer::{Value, text, write};

/// Whatever is asked on loopback comes from where this says.
const TRUST: &str = "trusted_proxies: [127.0.0.0/8]\n";

async fn origin() -> Origin {
    Origin::start(|request| {
        let country = request.header("X-Country").unwrap_or("-").to_owned();
        let asn = request.header("X-ASN").unwrap_or("-").to_owned();
        Reply::ok(format!("{} {country} {asn}", request.path())).cache_control("max-age=600")
    })
    .await
}

fn from(target: &str, address: &str) -> Ask {
    Ask::get(target).header("X-Forwarded-For", address)
}

#[tokio::test]
async fn addresses_are_those_of_clients_behind_trusted_proxies() {
    let origin = origin().await;
    let site = "access: { allow: [10.0.0.0/8, \"2001:db8::/32\"], deny: [10.1.0.0/16] }";
    let edge = Edge::start(&(TRUST.to_owned() + &Edge::yaml_before(&[&origin], site))).await;
    for (address, status) in [
        ("10.2.3.4", 200),
        ("2001:db8::1", 200),
        ("::ffff:10.2.3.4", 200),
        ("10.1.0.1", 403),
        ("192.0.2.1", 403),
        // Right to left: what a client says of itself counts for nothing.
        ("10.2.3.4, 192.0.2.1", 403),
        ("192.0.2.1, 10.2.3.4", 200),
    ] {
        let answer = edge.ask(&from("/a", address)).await;
        assert_eq!(answer.status, status, "{address}: {answer:?}");
        // A hit is guarded like a miss, and the reason is in the log alone.
        assert!(status == 200 || !answer.text().contains("access"), "{answer:?}");
    }
    assert_eq!(edge.get("/a").await.status, 403);
    assert_eq!(origin.count(), 1);
    let yaml = Edge::yaml_before(&[&origin], site);
    let distrusting = Edge::start(&yaml).await;
    assert_eq!(distrusting.ask(&from("/a", "10.2.3.4")).await.status, 403);
}

#[tokio::test]
async fn a_list_is_read_again_when_it_changes() {
    let origin = origin().await;
    let site = "access: { deny: [\"file:{dir}/deny.txt\"], status: 404 }";
    let yaml = TRUST.to_owned() + &Edge::yaml_before(&[&origin], site);
    let edge = Edge::builder(&yaml).file("deny.txt", "# nobody yet\n").start().await;
    let list = edge.folder().join("deny.txt");
    let status = async |address: &str| edge.ask(&from("/a", address)).await.status;
    assert_eq!(status("192.0.2.1").await, 200);
    std::fs::write(&list, "192.0.2.0/24 # a swarm\n").unwrap();
    super::harness::eventually("the list", async || status("192.0.2.1").await == 404).await;
    assert_eq!(status("198.51.100.1").await, 200);
    // A list that is wrong changes nothing; which line it is stands in the log.
    std::fs::write(&list, "198.51.100.0/24\nnonsense\n").unwrap();
    edge.wait_log("is wrong on line 2").await;
    assert_eq!((status("192.0.2.1").await, status("198.51.100.1").await), (404, 200));
    edge.wait_metrics("the failure", |metrics| {
        metrics.metric("foreland_watched_files{state=\"failing\"}") == Some(1.0)
    })
    .await;
    // And with it, there is nothing to start with.
    edge.signal(Signal::HUP);
    edge.wait_log("the configuration stays as it was").await;
    std::fs::write(&list, "198.51.100.0/24\n").unwrap();
    super::harness::eventually("the list", async || status("198.51.100.1").await == 404).await;
    assert_eq!(status("192.0.2.1").await, 200);
}

fn database(code: &str, number: u32) -> Vec<u8> {
    let country = ("country", Value::Map(vec![("iso_code", text(code))]));
    let system = ("autonomous_system_number", Value::U32(number));
    write(24, &[("192.0.2.0/24", Value::Map(vec![country, system]))])
}

#[tokio::test]
async fn countries_and_systems() {
    let origin = origin().await;
    let top =
        "geo: { country: \"{dir}/geo.mmdb\", asn: \"{dir}/geo.mmdb\", country_header: X-Country, asn_header: X-ASN }\n";
    let site = r#"access: { allow_countries: [DE, SE], deny_asns: [64501] }
routes:
  - { match: { path: "/open/**" }, access: off, cache: { key: { query: none } } }
"#;
    let yaml = TRUST.to_owned() + top + &Edge::yaml_before(&[&origin], site);
    let edge = Edge::builder(&yaml).file("geo.mmdb", database("DE", 64500)).start().await;
    assert_eq!(edge.ask(&from("/a", "192.0.2.1")).await.status, 200);
    // Of whom nothing is known is in no list.
    assert_eq!(edge.ask(&from("/a", "198.51.100.1")).await.status, 403);
    // What a client says of its country is dropped.
    let lying = from("/open/b", "198.51.100.1").header("X-Country", "DE").header("X-ASN", "1");
    assert_eq!(edge.ask(&lying).await.text(), "/open/b - -");
    assert_eq!(edge.ask(&from("/open/c", "192.0.2.1")).await.text(), "/open/c DE 64500");
    for (code, number, status) in [("FR", 64500, 403), ("SE", 64500, 200), ("SE", 64501, 403)] {
        std::fs::write(edge.folder().join("geo.mmdb"), database(code, number)).unwrap();
        let answered = async || edge.ask(&from("/a", "192.0.2.1")).await.status == status;
        super::harness::eventually("the database", answered).await;
    }
}

#[tokio::test]
async fn methods_fields_paths_agents_and_referers() {
    let origin = origin().await;
    let site = r#"access:
  methods: [GET]
  headers: { X-Key: open }
  deny_paths: ["/admin/**"]
  deny_user_agents: ["*curl*"]
  referers: [none, "*.example.com"]
"#;
    let edge = Edge::before(&origin, site).await;
    let good =
        |method: &str, target: &str| Ask::new(method, target).header("X-Key", "open").header("User-Agent", "Mozilla");
    assert_eq!(edge.ask(&good("GET", "/a")).await.status, 200);
    assert_eq!(edge.ask(&good("HEAD", "/a")).await.status, 200);
    let post = edge.ask(&good("POST", "/a").header("Content-Length", "0")).await;
    assert_eq!((post.status, post.header("Allow")), (405, Some("GET, HEAD")));
    for refused in [
        Ask::get("/a").header("User-Agent", "Mozilla"),
        Ask::get("/a").header("X-Key", "closed"),
        good("GET", "/admin/a"),
        good("GET", "//admin/a"),
        good("GET", "/x/../admin/a"),
        good("GET", "/%61dmin/a"),
        Ask::get("/a").header("X-Key", "open").header("User-Agent", "libCURL/8"),
        good("GET", "/a").header("Referer", "https://evil.test/"),
        good("GET", "/a").header("Referer", "https://example.com/"),
    ] {
        assert_eq!(edge.ask(&refused).await.status, 403, "{refused:?}");
    }
    assert_eq!(edge.ask(&good("GET", "/a").header("Referer", "https://www.example.com/")).await.status, 200);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_route_by_network_has_its_own_objects() {
    let origin = Origin::start(|request| {
        Reply::ok(request.header("X-Forwarded-For").unwrap_or_default().to_owned()).cache_control("max-age=600")
    })
    .await;
    let site = "routes:\n  - { name: staff, match: { clients: [10.0.0.0/8] } }\n";
    let edge = Edge::start(&(TRUST.to_owned() + &Edge::yaml_before(&[&origin], site))).await;
    let [staff, others] = ["10.0.0.1", "192.0.2.1"];
    assert!(!edge.ask(&from("/a", staff)).await.is_hit());
    assert!(!edge.ask(&from("/a", others)).await.is_hit());
    assert!(edge.ask(&from("/a", "10.9.9.9")).await.is_hit());
    assert!(edge.ask(&from("/a", "192.0.2.9")).await.is_hit());
    assert_eq!(origin.count(), 2);
    // A purge of the URL is of both.
    let purged = edge.admin_post("/v1/purge", "{\"urls\": [\"http://edge.test/a\"]}").await;
    assert_eq!(purged.status, 200, "{purged:?}");
    for address in [staff, others] {
        assert!(!edge.ask(&from("/a", address)).await.is_hit(), "{address}");
    }
    assert_eq!(origin.count(), 4);
}
