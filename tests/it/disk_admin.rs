//! The disk tier as the control API and the metrics show it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::harness::{Ask, Edge, Metrics, Origin, Port, Reply, eventually, http_date};

const SMALL: usize = 500;
/// More than memory keeps, and than a fill keeps in memory until it is whole.
const LARGE: usize = 1_200_000;

fn tiers(disk: &str) -> String {
    format!("cache: {{ memory: {{ size: 2MiB, max_object: 64KiB }}, disk: {disk} }}\n")
}

fn one_disk() -> String {
    tiers("{ path: \"{dir}/disk\", size: 64MiB, max_object: 16MiB, max_objects: 1000, min_free: 4KiB }")
}

/// Small and large, and `/lang`, which varies.
async fn origin() -> Origin {
    Origin::start(|r| match r.path() {
        "/large" => Reply::ok("l".repeat(LARGE)).cache_control("max-age=60"),
        "/lang" => {
            let lang = r.header("X-Lang").unwrap_or("none").to_owned();
            Reply::ok(lang).cache_control("max-age=60").header("Vary", "X-Lang")
        }
        "/missing" => Reply::new(404).cache_control("no-store"),
        _ => Reply::ok("s".repeat(SMALL))
            .cache_control("max-age=60")
            .header("ETag", "\"v1\"")
            .header("Last-Modified", http_date(-1000)),
    })
    .await
}

async fn tier(edge: &Edge, index: usize) -> Value {
    edge.admin_get("/v1/cache").await.json()["tiers"][index].clone()
}

/// Waits until the disk, or all disks together, have so many objects.
async fn wait_stored(edge: &Edge, objects: u64) {
    eventually(&format!("{objects} objects on disks"), async || {
        let json = edge.admin_get("/v1/cache").await.json();
        let disks = json["tiers"].as_array().expect("tiers").iter().skip(1);
        disks.map(|disk| disk["objects"].as_u64().expect("a number")).sum::<u64>() == objects
    })
    .await;
}

async fn ready(edge: &Edge) {
    eventually("the disk", async || tier(edge, 1).await["phase"] == "ready").await;
}

/// What is stored for a path, asked for with these fields.
async fn lookup(edge: &Edge, path: &str, fields: &str) -> Value {
    let answer = edge.admin_get(&format!("/v1/cache?url=http://edge.test{path}{fields}")).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

fn objects(found: &Value) -> &Vec<Value> {
    found["objects"].as_array().unwrap_or_else(|| panic!("no objects: {found}"))
}

fn file_of(object: &Value) -> PathBuf {
    PathBuf::from(object["file"].as_str().unwrap_or_else(|| panic!("no file: {object}")))
}

#[tokio::test]
async fn the_disk_tells_of_itself() {
    let origin = origin().await;
    let edge = Edge::start(&(Edge::yaml_before(&[&origin], "") + &one_disk())).await;
    ready(&edge).await;
    let before = tier(&edge, 1).await;
    let path = edge.folder().join("disk");
    let expected = json!({
        "tier": "disk", "path": path, "phase": "ready", "objects": 0, "bytes": before["bytes"], "capacity": 64 << 20,
        "max_object": 16 << 20, "max_objects": 1000, "min_free": 4096, "evictions": 0, "stored": 0, "opened": 0,
        "index_memory": before["index_memory"], "open_files": 0, "complete": true, "fills": 0,
        "reading": "ok", "writing": "ok",
        "queues": { "reads": { "queued": 0, "running": 0 }, "writes": { "queued": 0, "running": 0 } },
        "errors": before["errors"], "defects": before["defects"],
        "refused": { "no-room": 0, "busy": 0, "error": 0, "head": 0 },
    });
    assert_eq!(before, expected);
    assert_eq!(before["errors"]["write"]["full"], 0, "{before}");
    assert_eq!(before["defects"]["checksum"], 0, "{before}");

    edge.get("/small").await;
    edge.get("/large").await;
    wait_stored(&edge, 2).await;
    eventually("nothing under way", async || tier(&edge, 1).await["fills"] == 0).await;
    let after = tier(&edge, 1).await;
    assert_eq!((&after["stored"], &after["evictions"]), (&2.into(), &0.into()), "{after}");
    let grown = after["bytes"].as_u64().zip(before["bytes"].as_u64()).map_or(0, |(after, before)| after - before);
    assert!(grown >= LARGE as u64, "{after}");
    assert_eq!(tier(&edge, 0).await["objects"], 1, "the large one is on the disk alone");
    assert_eq!(edge.admin_get("/v1/cache").await.json()["fills"]["to_disk"], 0);
}

#[tokio::test]
async fn a_fill_that_goes_to_the_disk_is_told_of() {
    let gate = super::harness::Gate::new();
    let reply = Reply::ok("").cache_control("max-age=60").claim_length(2 * LARGE as u64).body("l".repeat(LARGE));
    let held = reply.wait(&gate).body("l".repeat(LARGE));
    let origin = Origin::start(move |_| held.clone()).await;
    let edge = Edge::start(&(Edge::yaml_before(&[&origin], "") + &one_disk())).await;
    ready(&edge).await;
    let mut client = edge.connect().await;
    client.send(Ask::get("/large").bytes()).await;
    gate.reached(1).await;
    eventually("a fill on its way to the disk", async || {
        let json = edge.admin_get("/v1/cache").await.json();
        json["fills"]["to_disk"] == 1 && json["tiers"][1]["fills"] == 1 && json["fills"]["running"] == 1
    })
    .await;
    assert_eq!(edge.metrics().await.sum("foreland_disk_fills_in_progress", &[]), 1.0);
    assert_eq!(objects(&lookup(&edge, "/large", "").await).len(), 0, "not stored yet");
    gate.open();
    assert_eq!(client.response("GET").await.text().len(), 2 * LARGE);
    wait_stored(&edge, 1).await;
    eventually("none any more", async || edge.admin_get("/v1/cache").await.json()["fills"]["to_disk"] == 0).await;
}

/// A job of the pool counts as running until its thread has put it down, which is after its result is known.
fn without_queues(mut cache: Value) -> Value {
    cache["tiers"][1]["queues"].take();
    cache
}

#[tokio::test]
async fn an_object_is_looked_up_in_all_tiers() {
    let origin = origin().await;
    let edge = Edge::start(&(Edge::yaml_before(&[&origin], "name: shop") + &one_disk())).await;
    ready(&edge).await;
    let nothing = lookup(&edge, "/small", "").await;
    assert_eq!((objects(&nothing).len(), &nothing["more"], &nothing["unread"]), (0, &0.into(), &json!([])));
    let text = "site=shop host=edge.test path=/small";
    assert_eq!((&nothing["site"], &nothing["key"]["text"]), (&"shop".into(), &text.into()));

    edge.get("/small").await;
    edge.get("/large").await;
    wait_stored(&edge, 2).await;
    assert!(edge.get("/small").await.is_hit());
    let before = without_queues(edge.admin_get("/v1/cache").await.json());

    let found = lookup(&edge, "/%73mall", "").await;
    assert_eq!(objects(&found).len(), 1, "{found}");
    let small = &objects(&found)[0];
    assert_eq!(small["tiers"], json!(["memory", "disk"]), "{small}");
    assert_eq!((&small["id"], &small["status"]), (&found["key"]["id"], &200.into()), "{small}");
    assert_eq!((&small["size"], &small["hits"]), (&SMALL.into(), &1.into()), "{small}");
    assert_eq!((&small["etag"], &small["vary"], &small["variant"]), (&"\"v1\"".into(), &Value::Null, &Value::Null));
    assert!(small["last_modified"].as_str().is_some_and(|date| date.ends_with(" GMT")), "{small}");
    assert!(small["age"].as_u64().is_some_and(|age| age < 15), "{small}");
    assert!(small["ttl"].as_i64().is_some_and(|ttl| (40..=60).contains(&ttl)), "{small}");
    assert!(small["stored_at"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')), "{small}");
    assert_eq!((&small["usable"], &small["selected"]), (&true.into(), &true.into()));
    assert!(file_of(small).starts_with(edge.folder().join("disk")) && file_of(small).is_file(), "{small}");

    let found = lookup(&edge, "/large", "").await;
    let large = &objects(&found)[0];
    assert_eq!((&large["tiers"], &large["size"]), (&json!(["disk"]), &LARGE.into()), "{large}");
    assert_eq!(std::fs::metadata(file_of(large)).expect("a file").len() / 100_000, LARGE as u64 / 100_000);
    assert_eq!(objects(&lookup(&edge, "/none", "").await).len(), 0);

    let after = without_queues(edge.admin_get("/v1/cache").await.json());
    assert_eq!(before, after, "looking leaves no trace");
}

#[tokio::test]
async fn each_variant_is_found_wherever_it_lies() {
    let origin = origin().await;
    let disk = |name: &str| format!("{{ path: \"{{dir}}/{name}\", size: 16MiB }}");
    let two = tiers(&format!("[{}, {}]", disk("one"), disk("two")));
    let edge = Edge::start(&(Edge::yaml_before(&[&origin], "") + &two)).await;
    eventually("both disks", async || {
        tier(&edge, 1).await["phase"] == "ready" && tier(&edge, 2).await["phase"] == "ready"
    })
    .await;
    // So many that both disks have some, as a rule.
    let langs = ["de", "en", "fr", "it", "es", "pt", "nl", "pl"];
    for lang in langs {
        assert_eq!(edge.ask(&Ask::get("/lang").header("X-Lang", lang)).await.text(), lang);
    }
    wait_stored(&edge, langs.len() as u64).await;
    let found = lookup(&edge, "/lang", "").await;
    let variants = objects(&found);
    assert_eq!(variants.len(), langs.len(), "{found}");
    assert_eq!(variants[0]["id"], found["key"]["id"], "the first comes first");
    let half = |id: &Value| id.as_str().expect("an id")[..16].to_owned();
    assert!(variants.iter().all(|variant| half(&variant["id"]) == half(&found["key"]["id"])), "{found}");
    assert!(variants.iter().all(|v| v["tiers"] == json!(["memory", "disk"]) && v["usable"] == true), "{found}");
    assert!(variants.iter().all(|v| v["vary"] == "X-Lang" && v["variant"].as_str().is_some()), "{found}");
    assert!(variants.iter().all(|v| file_of(v).is_file()), "{found}");
    assert!(variants.iter().all(|v| v["selected"] == false), "none is for a request without the field: {found}");

    let french = lookup(&edge, "/lang", "&header=X-Lang:%20fr").await;
    let selected: Vec<_> = objects(&french).iter().filter(|v| v["selected"] == true).collect();
    assert_eq!((selected.len(), &selected[0]["size"]), (1, &2.into()), "{french}");
    let file = file_of(selected[0]);
    let body = std::fs::read(&file).expect("a file");
    assert!(body.windows(2).any(|pair| pair == b"fr"), "{}", file.display());

    // One that is gone from the disk is in memory still; one that is damaged is named.
    std::fs::remove_file(&file).expect("removed");
    let german = lookup(&edge, "/lang", "&header=X-Lang:de").await;
    let german = objects(&german).iter().find(|v| v["selected"] == true).cloned().expect("the German one");
    std::fs::write(file_of(&german), b"FORELAND, but not for long").expect("written");
    let found = lookup(&edge, "/lang", "").await;
    let by_id = |id: &Value| objects(&found).iter().find(|v| v["id"] == *id).cloned().expect("the variant");
    assert_eq!(by_id(&selected[0]["id"])["tiers"], json!(["memory"]), "{found}");
    assert_eq!(by_id(&german["id"])["defect"], "version", "{found}");
    assert_eq!(tier(&edge, 1).await["defects"], tier(&edge, 2).await["defects"], "looking does not count");
}

#[tokio::test]
async fn what_a_post_has_invalidated_is_not_usable() {
    let origin = origin().await;
    let yaml = Edge::yaml_before(&[&origin], "cache: { key: { headers: [X-Lang] } }") + &one_disk();
    let edge = Edge::start(&yaml).await;
    ready(&edge).await;
    edge.ask(&Ask::get("/small").header("X-Lang", "de")).await;
    wait_stored(&edge, 1).await;
    let found = lookup(&edge, "/small", "&header=X-Lang:de").await;
    assert!(found["key"]["text"].as_str().is_some_and(|text| text.ends_with("x-lang=\"de\"")), "{found}");
    assert_eq!((objects(&found).len(), &objects(&found)[0]["usable"]), (1, &true.into()), "{found}");
    assert_eq!(objects(&lookup(&edge, "/small", "").await).len(), 0, "the key has the field");

    edge.ask(&Ask::new("POST", "/small").body("x")).await;
    let found = lookup(&edge, "/small", "&header=X-Lang:de").await;
    assert_eq!((&objects(&found)[0]["usable"], &objects(&found)[0]["selected"]), (&false.into(), &false.into()));
}

#[tokio::test]
async fn what_cannot_be_looked_up_is_refused_by_name() {
    let origin = origin().await;
    let address = origin.address();
    let yaml = format!(
        "trusted_proxies: [127.0.0.0/8]\norigins: {{ o: {{ servers: [\"{address}\"] }} }}\nsites:\n  - name: shop\n    hosts: [a.test]\n    \
         origin: o\n    routes:\n      - name: live\n        match: {{ path: /live/** }}\n        cache: off\n"
    ) + &one_disk();
    let edge = Edge::start(&yaml).await;
    let ask = async |query: &str| edge.admin_get(&format!("/v1/cache?{query}")).await;
    for (query, status, word) in [
        ("url=http://b.test/a", 404, "b.test"),
        ("url=a.test/a", 400, "http://"),
        ("url=ftp://a.test/a", 400, "http://"),
        ("url=http:///a", 400, "host"),
        ("url=http://a.test/%23top", 400, "fragment"),
        ("url=http://a.test/a%20b", 400, "percent"),
        ("url=http://a_b%5B/", 400, "host"),
        ("url=http://a.test/&verbose=1", 400, "verbose"),
        ("url=http://a.test/&header=nonsense", 400, "nonsense"),
        ("header=A:b", 400, "url"),
    ] {
        let answer = ask(query).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.to_ascii_lowercase().contains(word), "{query}: {error}");
    }
    let off = ask("url=http://a.test/live/a").await;
    assert_eq!(off.status, 200);
    let off = off.json();
    assert_eq!((&off["route"], &off["key"], &off["objects"]), (&"live".into(), &Value::Null, &json!([])));
    assert!(off["reason"].as_str().is_some_and(|reason| reason.contains("off")), "{off}");

    // A trusted proxy has ended TLS: what it asks for has a key of its own.
    let by_proxy = |proto: &str| Ask::get("/a?b=1&c").host("a.test").header("X-Forwarded-Proto", proto);
    edge.ask(&by_proxy("https")).await;
    ready(&edge).await;
    wait_stored(&edge, 1).await;
    let https = ask("url=HTTPS://A.test:443/a?b=1%26c").await.json();
    assert_eq!(objects(&https).len(), 1, "{https}");
    assert!(https["key"]["text"].as_str().is_some_and(|text| text.contains("scheme=https")), "{https}");
    let http = ask("url=http://a.test:80/a?b=1%26c").await.json();
    assert_eq!(objects(&http).len(), 0, "{http}");
    edge.ask(&by_proxy("http")).await;
    assert_eq!(objects(&ask("url=http://a.test/a?b=1%26c").await.json()).len(), 1);
}

/// An edge whose disk is as a file says, which is none of its own folder: that has no name before it starts.
struct Faulty {
    edge: Edge,
    file: PathBuf,
}

impl Faulty {
    async fn start(yaml: &str) -> Faulty {
        // The port is this one's for as long as it is held, so no two have the same file.
        let port = Port::reserve();
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "faults-admin-{}-{}",
            std::process::id(),
            port.address().port()
        ));
        std::fs::write(&file, "").expect("a file of faults");
        let path = file.to_str().expect("text").to_owned();
        let edge = Edge::builder(yaml).env("FORELAND_DISK_FAULTS", &path).start().await;
        ready(&edge).await;
        drop(port);
        Faulty { edge, file }
    }

    fn set(&self, lines: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, lines).expect("a file of faults");
        std::fs::rename(&new, &self.file).expect("in its place");
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_named_and_not_waited_for() {
    let origin = origin().await;
    let faulty = Faulty::start(&(Edge::yaml_before(&[&origin], "") + &one_disk())).await;
    let edge = &faulty.edge;
    edge.get("/small").await;
    wait_stored(edge, 1).await;
    for (fault, reason) in [("readdir EIO\n", "error"), ("readdir hang\n", "in time")] {
        faulty.set(fault);
        let found = lookup(edge, "/small", "").await;
        assert_eq!(objects(&found)[0]["tiers"], json!(["memory"]), "{found}");
        let unread = &found["unread"][0];
        assert_eq!(unread["disk"], json!(edge.folder().join("disk")), "{found}");
        assert!(unread["reason"].as_str().is_some_and(|said| said.contains(reason)), "{found}");
    }
    faulty.set("");
    let found = lookup(edge, "/small", "").await;
    assert_eq!(objects(&found)[0]["tiers"], json!(["memory", "disk"]), "{found}");
    let disk = tier(edge, 1).await;
    assert_eq!((&disk["reading"], &disk["errors"]["read"]["io"]), (&"ok".into(), &0.into()), "no trace: {disk}");
}

fn hits(metrics: &Metrics, tier: &str) -> f64 {
    metrics.sum("foreland_cache_hits_total", &[("tier", tier)])
}

#[tokio::test]
async fn hits_count_for_the_tier_that_they_come_from() {
    let origin = origin().await;
    let edge = Edge::start(&(Edge::yaml_before(&[&origin], "name: shop") + &one_disk())).await;
    ready(&edge).await;
    edge.get("/small").await;
    edge.get("/large").await;
    edge.get("/missing").await;
    wait_stored(&edge, 2).await;
    for _ in 0..2 {
        assert!(edge.get("/small").await.is_hit());
    }
    assert!(edge.get("/large").await.is_hit());
    edge.wait_metrics("the hits", |m| hits(m, "memory") == 2.0 && hits(m, "disk") == 1.0).await;
    let metrics = edge.metrics().await;
    let path = edge.folder().join("disk").display().to_string();
    let bytes = |tier| metrics.sum("foreland_cache_hit_bytes_total", &[("site", "shop"), ("tier", tier)]);
    assert_eq!((bytes("memory"), bytes("disk")), (2.0 * SMALL as f64, LARGE as f64));
    // The same of the tier and of its only disk.
    for (of_tier, of_disk) in [
        ("foreland_cache_objects", "foreland_disk_objects"),
        ("foreland_cache_bytes", "foreland_disk_bytes"),
        ("foreland_cache_capacity_bytes", "foreland_disk_capacity_bytes"),
        ("foreland_cache_evictions_total", "foreland_disk_evictions_total"),
    ] {
        let of_tier = metrics.metric(&format!("{of_tier}{{tier=\"disk\"}}")).expect(of_tier);
        assert_eq!(Some(of_tier), metrics.metric(&format!("{of_disk}{{disk=\"{path}\"}}")), "{of_disk}");
    }
    assert_eq!(metrics.metric(&format!("foreland_disk_phase{{disk=\"{path}\",phase=\"ready\"}}")), Some(1.0));
    assert_eq!(metrics.sum("foreland_disk_phase", &[]), 1.0);
    assert_eq!(metrics.sum("foreland_disk_objects_stored_total", &[("disk", &path)]), 2.0);
    assert_eq!(metrics.sum("foreland_disk_suspended", &[]), 0.0);
    assert_eq!(metrics.sum("foreland_disk_errors_total", &[]), 0.0);
    assert!(metrics.sum("foreland_disk_index_bytes", &[]) > 0.0);
    assert!(metrics.sum("foreland_disk_open_files", &[]) >= 1.0);
}

#[tokio::test]
async fn reads_errors_and_suspensions_show_in_the_metrics() {
    let origin = origin().await;
    let faulty = Faulty::start(&(Edge::yaml_before(&[&origin], "") + &one_disk())).await;
    let edge = &faulty.edge;
    edge.get("/large").await;
    wait_stored(edge, 1).await;
    let reads = |m: &Metrics| m.sum("foreland_disk_read_seconds_count", &[]);
    // What is not in the page cache is read by the disk's threads.
    faulty.set("read nowait\n");
    let before = reads(&edge.metrics().await);
    assert!(edge.get("/large").await.is_hit());
    let metrics = edge.metrics().await;
    assert!(reads(&metrics) > before, "{before}");
    assert!(metrics.sum("foreland_disk_read_seconds_sum", &[]) > 0.0);
    let all = metrics.sum("foreland_disk_read_seconds_bucket", &[("le", "+Inf")]);
    assert_eq!(all, reads(&metrics));

    faulty.set("publish ENOSPC\nwrite ENOSPC\ncreate ENOSPC\n");
    edge.get("/other").await;
    edge.wait_metrics("the suspension", |m| m.sum("foreland_disk_suspended", &[("direction", "write")]) == 1.0).await;
    let metrics = edge.metrics().await;
    assert!(metrics.sum("foreland_disk_errors_total", &[("kind", "write"), ("cause", "full")]) >= 1.0);
    assert_eq!(metrics.sum("foreland_disk_suspended", &[("direction", "read")]), 0.0);
    let refused = ("reason", "no-room");
    assert_eq!(metrics.sum("foreland_disk_writes_refused_total", &[refused]), 1.0);
    assert_eq!(metrics.sum("foreland_cache_admissions_rejected_total", &[("tier", "disk"), refused]), 1.0);
    let disk = tier(edge, 1).await;
    assert_eq!((&disk["writing"], &disk["reading"]), (&"full".into(), &"ok".into()), "{disk}");
    assert_eq!(disk["refused"]["no-room"], 1, "{disk}");
    assert!(disk["errors"]["write"]["full"].as_u64().is_some_and(|errors| errors >= 1), "{disk}");
    faulty.set("");
    edge.wait_metrics("that it is over", |m| m.sum("foreland_disk_suspended", &[]) == 0.0).await;
}

#[tokio::test]
async fn evictions_rise_where_the_disk_is_small() {
    let origin = Origin::start(|_| Reply::ok("l".repeat(LARGE)).cache_control("max-age=60")).await;
    let disk = tiers("{ path: \"{dir}/disk\", size: 8MiB, max_object: 2MiB, max_objects: 3 }");
    let edge = Edge::start(&(Edge::yaml_before(&[&origin], "") + &disk)).await;
    ready(&edge).await;
    for n in 0..6 {
        edge.get(&format!("/{n}")).await;
    }
    edge.wait_metrics("evictions", |m| m.sum("foreland_disk_evictions_total", &[]) >= 3.0).await;
    let metrics = edge.metrics().await;
    assert_eq!(
        metrics.sum("foreland_cache_evictions_total", &[("tier", "disk")]),
        metrics.sum("foreland_disk_evictions_total", &[])
    );
    let told = tier(&edge, 1).await;
    assert!(told["evictions"].as_u64().is_some_and(|evictions| evictions >= 3), "{told}");
    assert!(told["objects"].as_u64().is_some_and(|objects| objects <= 3), "{told}");
    assert!(told["bytes"].as_u64().is_some_and(|bytes| bytes <= 8 << 20), "{told}");
}
