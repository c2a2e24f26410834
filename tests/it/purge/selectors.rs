//! What a purge selects, and what it does not: hard, over every tier and protocol.

use serde_json::{Value, json};

use super::{Stock, TIERS, Tier, before, ledger, numbered, purge, start};
use crate::harness::{Ask, Origin, Reply};
use crate::over::{BOTH, all};

/// Two sites. An answer has the tags that its path names below `/t/`.
fn yaml(origin: &Origin, tier: Tier) -> String {
    let address = origin.address();
    let sites = format!(
        r#"origins:
  o: {{ servers: ["{address}"] }}
sites:
  - name: shop
    hosts: [shop.test, www.shop.test]
    origin: o
    routes:
      - match: {{ path: "/keyed" }}
        cache: {{ key: {{ headers: [X-Part], cookies: [cart] }} }}
      - match: {{ path: "/search" }}
        cache: {{ key: {{ query: {{ only: [q] }} }} }}
  - name: news
    hosts: [news.test, shop.test.news.test]
    origin: o
"#
    );
    sites + tier.yaml()
}

async fn origin() -> Origin {
    numbered(|request| {
        let reply = Reply::new(200).cache_control("max-age=3600");
        match request.path() {
            "/vary" => reply.header("Vary", "Accept-Language"),
            "/t/many" => reply.header("Surrogate-Key", "blue red green"),
            "/t/commas" => reply.header("Cache-Tag", "blue,red"),
            path => match path.strip_prefix("/t/") {
                Some(tag) => reply.header("Surrogate-Key", tag),
                None => reply,
            },
        }
    })
    .await
}

/// All by host and target, with what else their keys or variants depend on.
fn stock() -> Vec<(String, Ask)> {
    let plain = [
        "shop.test/a",
        "shop.test/a/",
        "shop.test/a/b",
        "shop.test/ab",
        "shop.test/A",
        "shop.test/a?x=1",
        "shop.test/a?x=2",
        "shop.test:8080/a",
        "shop.test/search?q=1",
        "shop.test/search?q=2",
        "www.shop.test/a",
        "news.test/a",
        "shop.test.news.test/a",
        "shop.test/t/red",
        "shop.test/t/Red",
        "shop.test/t/redder",
        "shop.test/t/dark-red",
        "shop.test/t/many",
        "shop.test/t/commas",
        "news.test/t/red",
    ];
    let ask = |url: &str| {
        let at = url.find('/').expect("a path");
        Ask::get(&url[at..]).host(&url[..at])
    };
    let mut all: Vec<_> = plain.iter().map(|url| (String::from(*url), ask(url))).collect();
    for (what, name, value) in [
        ("vary", "Accept-Language", "en"),
        ("vary", "Accept-Language", "de"),
        ("keyed", "X-Part", "one"),
        ("keyed", "X-Part", "two"),
        ("keyed", "Cookie", "cart=1"),
    ] {
        let url = format!("shop.test/{what}");
        all.push((format!("{url} {value}"), ask(&url).header(name, value)));
    }
    all.push(("shop.test/keyed".to_owned(), ask("shop.test/keyed")));
    all
}

const VARY: [&str; 2] = ["shop.test/vary en", "shop.test/vary de"];
const KEYED: [&str; 4] = ["shop.test/keyed one", "shop.test/keyed two", "shop.test/keyed cart=1", "shop.test/keyed"];
/// Below `/a` on one host and port.
const BELOW_A: [&str; 5] = ["shop.test/a", "shop.test/a/", "shop.test/a/b", "shop.test/a?x=1", "shop.test/a?x=2"];

/// Each purge, and what it selects.
fn purges(names: &[&'static str]) -> Vec<(Value, Vec<&'static str>)> {
    let of = |hosts: &[&str]| -> Vec<&'static str> {
        names.iter().copied().filter(|name| hosts.contains(&name.split('/').next().unwrap_or_default())).collect()
    };
    let with = |some: &[&'static str], more: &[&'static str]| [some, more].concat();
    let url = |url: &str| json!({ "urls": [url] });
    let prefix = |prefix: &str| json!({ "prefixes": [prefix] });
    let raw = |prefix: &str| json!({ "prefixes": [prefix], "raw": true });
    let tag = |tag: &str| json!({ "tags": [tag] });
    let host = |host: &str| json!({ "hosts": [host] });
    vec![
        (url("http://shop.test/a"), vec!["shop.test/a"]),
        (url("HTTP://Shop.Test:80/%61"), vec!["shop.test/a"]),
        (url("http://shop.test/A"), vec!["shop.test/A"]),
        (url("http://shop.test/a/"), vec!["shop.test/a/"]),
        (url("http://shop.test/a?x=1"), vec!["shop.test/a?x=1"]),
        (url("http://shop.test/a?x"), vec![]),
        (url("http://shop.test:8080/a"), vec!["shop.test:8080/a"]),
        (url("http://www.shop.test/a"), vec!["www.shop.test/a"]),
        (url("http://elsewhere.test/a"), vec![]),
        (url("http://shop.test/vary"), VARY.to_vec()),
        (url("http://shop.test/keyed"), KEYED.to_vec()),
        (url("http://shop.test/search?q=1&page=2"), vec!["shop.test/search?q=1"]),
        (host("shop.test"), of(&["shop.test", "shop.test:8080"])),
        (host("SHOP.test:8080"), vec!["shop.test:8080/a"]),
        (host("www.shop.test"), vec!["www.shop.test/a"]),
        (host("test"), vec![]),
        (prefix("shop.test/a"), with(&BELOW_A, &["shop.test:8080/a"])),
        (prefix("shop.test:8080/a"), vec!["shop.test:8080/a"]),
        (prefix("shop.test/a/"), vec!["shop.test/a/", "shop.test/a/b"]),
        (prefix("shop.test/A"), vec!["shop.test/A"]),
        (prefix("shop.test/"), of(&["shop.test", "shop.test:8080"])),
        (raw("shop.test/a"), with(&BELOW_A, &["shop.test/ab", "shop.test:8080/a"])),
        (raw("shop.test/t/re"), vec!["shop.test/t/red", "shop.test/t/redder"]),
        (prefix("shop.test/t/re"), vec![]),
        (tag("red"), vec!["shop.test/t/red", "shop.test/t/many", "shop.test/t/commas", "news.test/t/red"]),
        (tag("Red"), vec!["shop.test/t/Red"]),
        (tag("dark-red"), vec!["shop.test/t/dark-red"]),
        (tag("blue"), vec!["shop.test/t/many", "shop.test/t/commas"]),
        (tag("re"), vec![]),
        (json!({ "sites": ["shop"] }), of(&["shop.test", "shop.test:8080", "www.shop.test"])),
        (json!({ "sites": ["news"] }), of(&["news.test", "shop.test.news.test"])),
        (json!({ "everything": true }), names.to_vec()),
        (
            json!({ "urls": ["http://shop.test/A"], "hosts": ["www.shop.test"], "tags": ["redder", "unknown"] }),
            vec!["shop.test/A", "www.shop.test/a", "shop.test/t/redder"],
        ),
    ]
}

async fn over(tier: Tier) {
    let origin = origin().await;
    let edge = start(&yaml(&origin, tier)).await;
    let mut stock = Stock::fill(&edge, stock()).await;
    let names: Vec<&'static str> = stock.names().into_iter().map(|name| &*name.to_owned().leak()).collect();
    let mut sequence = 0;
    for (n, (what, gone)) in purges(&names).into_iter().enumerate() {
        let over = BOTH[n % 2];
        let mut client = over.connect(&edge).await;
        let asked = origin.count();
        let next = purge(&edge, &what).await;
        assert!(next > sequence, "{next} after {sequence}");
        sequence = next;
        let how = format!("{tier:?}, {over:?}: {what}");
        stock.assert_gone(&mut client, n / 2 % 2 == 1, &gone, &how).await;
        assert_eq!(origin.count() - asked, gone.len(), "{how}: each is fetched once");
    }
}

#[tokio::test]
async fn selectors_in_memory() {
    over(Tier::Memory).await;
}

#[tokio::test]
async fn selectors_on_a_disk() {
    over(Tier::Disk).await;
}

#[tokio::test]
async fn selectors_in_memory_and_on_a_disk() {
    over(Tier::Both).await;
}

/// So many URLs, of which the first and the last are stored.
fn batch(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("http://edge.test/{n}")).collect()
}

#[tokio::test]
async fn ten_thousand_in_one_call() {
    let origin = numbered(|_| Reply::new(200).cache_control("max-age=3600")).await;
    for tier in TIERS {
        let edge = before(&origin, tier, "").await;
        let asks = ["/0", "/5000", "/9999", "/10000"].map(|target| (target.to_owned(), Ask::get(target)));
        let mut stock = Stock::fill(&edge, asks).await;
        let mut client = BOTH[0].connect(&edge).await;
        let all = batch(10_000);
        let head = ledger(&edge).await["head"].clone();

        // One more than there may be, and one that is none: nothing of it.
        let mut wrong = all.clone();
        wrong[7_000] = "edge.test/7000".to_owned();
        for (urls, list, index) in [(batch(10_001), "urls", 10_000), (wrong, "urls", 7_000)] {
            let answer = edge.admin_post("/v1/purge", &json!({ "urls": urls }).to_string()).await;
            assert_eq!(answer.status, 400, "{}", answer.text());
            let told = answer.json();
            if let Some(first) = told["selectors"].as_array().and_then(|selectors| selectors.first()) {
                assert_eq!((&first["list"], &first["index"]), (&list.into(), &index.into()), "{told}");
            }
            stock.assert_gone(&mut client, false, &[], "what is wrong changes nothing").await;
            assert_eq!(ledger(&edge).await["head"], head, "{tier:?}");
        }

        let sequence = purge(&edge, &json!({ "urls": all })).await;
        stock.assert_gone(&mut client, false, &["/0", "/5000", "/9999"], "10,000 at once").await;
        let entry = &ledger(&edge).await["entries"][0];
        assert_eq!((&entry["sequence"], &entry["count"]), (&sequence.into(), &10_000.into()));
        assert_eq!(entry["selectors"].as_array().map(Vec::len), Some(20));
    }
}

#[tokio::test]
async fn wrong_selectors_of_every_kind_change_nothing() {
    let origin = numbered(|_| Reply::new(200).cache_control("max-age=3600").header("Surrogate-Key", "red")).await;
    let edge = before(&origin, Tier::Both, "").await;
    let mut stock = Stock::fill(&edge, [("/a".to_owned(), Ask::get("/a"))]).await;
    let right = json!({ "urls": ["http://edge.test/a"], "tags": ["red"] });
    let head = ledger(&edge).await["head"].clone();
    for (list, wrong) in [
        ("urls", json!(["/a"])),
        ("hosts", json!(["edge.test/a"])),
        ("prefixes", json!(["edge.test/*"])),
        ("tags", json!([""])),
        ("tags", json!(["a b"])),
        ("sites", json!(["nowhere"])),
        ("everything", json!("yes")),
        ("url", json!(["http://edge.test/a"])),
    ] {
        let mut what = right.clone();
        what[list] = wrong;
        let answer = edge.admin_post("/v1/purge", &what.to_string()).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
    }
    stock.assert_gone(&mut BOTH[0].connect(&edge).await, false, &[], "wrong selectors").await;
    assert_eq!(ledger(&edge).await["head"], head);
}

/// Those that come at the same time get a place each, and all are in force.
#[tokio::test]
async fn many_at_once() {
    let origin = numbered(|_| Reply::new(200).cache_control("max-age=3600")).await;
    for tier in [Tier::Memory, Tier::Both] {
        let edge = before(&origin, tier, "").await;
        let targets: Vec<String> = (0..40).map(|n| format!("/{n}")).collect();
        let mut stock = Stock::fill(&edge, targets.iter().map(|target| (target.clone(), Ask::get(target)))).await;
        let purges: Vec<Value> = targets.iter().skip(1).map(|target| super::url(target)).collect();
        let mut sequences = all(purges.iter().map(|what| purge(&edge, what))).await;
        sequences.sort_unstable();
        sequences.dedup();
        assert_eq!(sequences.len(), purges.len(), "{tier:?}: {sequences:?}");
        let gone: Vec<_> = targets.iter().skip(1).map(String::as_str).collect();
        stock.assert_gone(&mut BOTH[0].connect(&edge).await, false, &gone, "many at once").await;
        let told = ledger(&edge).await;
        assert_eq!(told["entries"].as_array().map(Vec::len), Some(purges.len()));
    }
}
