//! The control API is as docs/openapi.json describes it: each operation is asked, for what succeeds and what fails, and
//! status, media type, fields and body of every answer are held against the description.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::harness::{Ask, Edge, Gate, Origin, Reply, Response, eventually, exchange};

/// Names of variables, and the tokens in them: without a name, and one for each role.
const TOKENS: [(&str, &str); 4] = [
    ("FORELAND_TEST_TOKEN", "correct-horse"),
    ("FORELAND_TEST_PURGE", "correct-horse-purge"),
    ("FORELAND_TEST_READ", "correct-horse-read"),
    ("FORELAND_TEST_ALL", "correct-horse-all"),
];

/// Statuses that take a defect or ten seconds to come about.
const NOT_ASKED_FOR: [&str; 2] = ["408", "500"];

const SITE: &str = "name: shop\nroutes:\n  - name: live\n    match: { path: /live/** }\n    cache: off";

const CACHE: &str =
    "cache: { memory: { size: 2MiB, max_object: 64KiB }, disk: { path: \"{dir}/disk\", size: 64MiB } }\n";

const ADMIN: &str = "admin:\n  address: \"127.0.0.1:{admin}\"\n  token: env:FORELAND_TEST_TOKEN\n  tokens:\n\
    \x20   - { name: deploy, token: env:FORELAND_TEST_PURGE, role: purge }\n\
    \x20   - { name: scraper, token: env:FORELAND_TEST_READ, role: read }\n\
    \x20   - { name: operator, token: env:FORELAND_TEST_ALL, role: all }\n";

/// Holds `/held` until the gate opens.
async fn origin(gate: &Gate) -> Origin {
    let held = Reply::ok("held").cache_control("no-store").hold(gate);
    Origin::start(move |r| match r.path() {
        "/held" => held.clone(),
        "/large" => Reply::ok("l".repeat(100_000)).cache_control("max-age=60"),
        "/lang" => Reply::ok(r.header("X-Lang").unwrap_or("none").to_owned())
            .cache_control("max-age=60")
            .header("Vary", "X-Lang")
            .header("ETag", "\"v1\""),
        _ => Reply::ok("x").cache_control("max-age=60"),
    })
    .await
}

async fn start(origin: &Origin, admin: &str) -> Edge {
    let yaml = Edge::yaml_before(&[origin], SITE) + CACHE + admin;
    let builder = TOKENS.iter().fold(Edge::builder(&yaml), |builder, (name, token)| builder.env(name, token));
    let edge = builder.token(TOKENS[0].1).start().await;
    eventually("the disk", async || edge.admin_get("/v1/cache").await.json()["tiers"][1]["phase"] == "ready").await;
    edge
}

/// What is asked of each operation alike: all that goes wrong before anybody looks at what it is about.
#[tokio::test]
async fn every_operation_answers_as_described() {
    let gate = Gate::new();
    let origin = origin(&gate).await;
    let (edge, open) = (start(&origin, ADMIN).await, start(&origin, "").await);
    let description = Description::of(&edge).await;
    let server = origin.address().to_string();
    for (path, method) in description.operations() {
        let target = path.replace("{origin}", "o").replace("{server}", &server);
        let ask = Ask::new(&method, &target);
        if description.operation(&path, &method)["security"] == json!([]) {
            continue;
        }
        let asked = async |status: u16, edge: &Edge, ask: Ask| {
            let answer = exchange(edge.admin_address(), &ask.host(&edge.admin_address().to_string())).await;
            assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
            description.check(&path, &method, &answer);
        };
        asked(401, &edge, ask.clone()).await;
        asked(401, &edge, ask.clone().header("Authorization", "Bearer wrong")).await;
        asked(403, &open, ask.clone().header("Origin", "http://evil.example")).await;
        let roles = description.operation(&path, &method)["security"].to_string();
        for (role, token) in [("\"purge\"", TOKENS[1].1), ("\"read\"", TOKENS[2].1)] {
            if !roles.contains(role) {
                asked(403, &edge, ask.clone().header("Authorization", format!("Bearer {token}"))).await;
            }
        }
        asked(413, &open, ask.clone().header("Content-Length", "16777217")).await;
        if path != "/metrics" {
            asked(400, &open, Ask::new(&method, &format!("{target}?verbose=1"))).await;
        }
    }

    let get = async |path: &str, query: &str, status: u16| {
        let answer = edge.admin_get(&format!("{path}{query}")).await;
        assert_eq!(answer.status, status, "{path}{query}: {answer:?}");
        description.check(path, "GET", &answer)
    };
    for path in ["/healthz", "/readyz", "/metrics", "/v1/config", "/v1/origins", "/v1/openapi.json"] {
        get(path, "", 200).await;
    }
    for limit in ["0", "1001", "x"] {
        get("/v1/ledger", &format!("?limit={limit}"), 400).await;
    }

    let post = async |path: &str, target: &str, body: &str, statuses: &[u16]| {
        let answer = edge.admin_post(target, body).await;
        assert!(statuses.contains(&answer.status), "{target}: {body}: {answer:?}");
        description.check(path, "POST", &answer)
    };
    for word in ["drain", "undrain"] {
        let path = format!("/v1/origins/{{origin}}/servers/{{server}}/{word}");
        post(&path, &format!("/v1/origins/o/servers/{server}/{word}"), "", &[200]).await;
        post(&path, &format!("/v1/origins/o/servers/nobody/{word}"), "", &[404]).await;
        post(&path, &format!("/v1/origins/p/servers/{server}/{word}"), "", &[404]).await;
        post(&path, &format!("/v1/origins/%ff/servers/{server}/{word}"), "", &[400]).await;
    }

    // 503 where there is no ledger that could take it.
    for body in [r#"{"tags": ["a", "b"]}"#, r#"{"everything": true, "soft": true}"#] {
        post("/v1/purge", "/v1/purge", body, &[200, 503]).await;
    }
    for body in ["", "{", "[]", "{}", r#"{"tags": "a"}"#, r#"{"tag": []}"#, r#"{"soft": 1, "tags": ["a"]}"#] {
        post("/v1/purge", "/v1/purge", body, &[400]).await;
    }
    let wrong = post("/v1/purge", "/v1/purge", r#"{"urls": ["", 3, {}], "hosts": [null]}"#, &[400]).await;
    assert_eq!(wrong["selectors"].as_array().map(Vec::len), Some(4), "{wrong}");
    let ask = Ask::new("POST", "/v1/purge").header("Content-Type", "text/plain").body(r#"{"tags": ["a"]}"#);
    description.check("/v1/purge", "POST", &edge.admin(ask).await);

    // Who has changed something is in the log, by name and not by token.
    let deploy = Ask::new("POST", "/v1/purge").host(&edge.admin_address().to_string());
    let deploy = deploy.header("Authorization", format!("Bearer {}", TOKENS[1].1)).body(r#"{"tags": ["a"]}"#);
    description.check("/v1/purge", "POST", &exchange(edge.admin_address(), &deploy).await);
    edge.wait_log("admin: POST /v1/purge by `deploy`: ").await;
    assert!(TOKENS.iter().all(|(_, token)| !edge.log().contains(token)));

    post("/v1/reload", "/v1/reload", "", &[200]).await;
    edge.write_config("threads: none\n");
    post("/v1/reload", "/v1/reload", "", &[422]).await;

    stored(&edge, &description).await;

    for (status, answer) in [
        ("NotFound", edge.admin_get("/v1/nothing").await),
        ("NotAllowed", edge.admin(Ask::new("DELETE", "/v1/purge")).await),
        ("NotAllowed", edge.admin_get("/v1/reload").await),
    ] {
        let response = &description.0["components"]["responses"][status];
        description.check_response(response, &answer).unwrap_or_else(|why| panic!("{status}: {why}: {answer:?}"));
    }

    let mut client = edge.connect().await;
    client.send(Ask::get("/held").bytes()).await;
    gate.reached(1).await;
    edge.signal(Signal::TERM);
    eventually("the end of readiness", async || edge.admin_get("/readyz").await.status == 503).await;
    get("/readyz", "", 503).await;
    gate.open();
    assert_eq!(client.response("GET").await.text(), "held");

    description.assert_all_checked();
}

/// `/v1/cache`, of each kind of object.
async fn stored(edge: &Edge, description: &Description) {
    let look = async |query: &str, status: u16| {
        let answer = edge.admin_get(&format!("/v1/cache{query}")).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        description.check("/v1/cache", "GET", &answer)
    };
    edge.get("/large").await;
    for lang in ["de", "fr"] {
        edge.ask(&Ask::get("/lang").header("X-Lang", lang)).await;
    }
    eventually("three objects on the disk", async || look("", 200).await["tiers"][1]["objects"] == 3).await;
    let found = look("?url=http://edge.test/lang&header=X-Lang:de", 200).await;
    assert_eq!(found["objects"].as_array().map(Vec::len), Some(2), "{found}");
    assert_eq!(look("?url=http://edge.test/nothing", 200).await["objects"], json!([]));
    assert_eq!(look("?url=http://edge.test/live/a", 200).await["key"], Value::Null);

    // Too large for memory, and then damaged.
    let large = look("?url=http://edge.test/large", 200).await;
    let file = large["objects"][0]["file"].as_str().unwrap_or_else(|| panic!("no file: {large}"));
    std::fs::write(Path::new(file), b"FORELAND, but not for long").expect("written");
    let damaged = look("?url=http://edge.test/large", 200).await;
    assert_eq!(damaged["objects"][0].get("status"), None, "{damaged}");

    look("?url=nonsense", 400).await;
    look("?header=a:b", 400).await;
    look("?url=http://[::1/", 400).await;
}

#[tokio::test]
async fn a_url_of_no_site_is_answered_as_described() {
    let origin = origin(&Gate::new()).await;
    let yaml = format!(
        "origins: {{ o: {{ servers: [\"{}\"] }} }}\nsites: [{{ hosts: [a.test], origin: o }}]\n",
        origin.address()
    );
    let edge = Edge::start(&yaml).await;
    let description = Description::of(&edge).await;
    let answer = edge.admin_get("/v1/cache?url=http://b.test/").await;
    assert_eq!(answer.status, 404);
    description.check("/v1/cache", "GET", &answer);
    let disks = edge.admin_get("/v1/cache").await;
    assert_eq!(description.check("/v1/cache", "GET", &disks)["tiers"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn the_ledger_is_as_described() {
    let origin = origin(&Gate::new()).await;
    let edge = start(&origin, "").await;
    let description = Description::of(&edge).await;
    let first = description.check("/v1/ledger", "GET", &edge.admin_get("/v1/ledger").await);
    assert_eq!((&first["head"], &first["entries"]), (&0.into(), &json!([])));
    for body in [
        r#"{"urls": ["http://edge.test/a?b"], "hosts": ["edge.test"], "tags": ["t"], "sites": ["shop"]}"#,
        r#"{"prefixes": ["edge.test/a"], "raw": true, "soft": true}"#,
        r#"{"everything": true}"#,
    ] {
        let answer = edge.admin_post("/v1/purge", body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        description.check("/v1/purge", "POST", &answer);
    }
    let many: Vec<_> = (0..25).map(|n| format!("t{n}")).collect();
    edge.admin_post("/v1/purge", &json!({ "tags": many }).to_string()).await;
    let ledger = description.check("/v1/ledger", "GET", &edge.admin_get("/v1/ledger").await);
    let entries = ledger["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), 4, "{ledger}");
    let latest = &entries[0];
    assert_eq!((&latest["sequence"], &latest["count"]), (&ledger["head"], &25.into()), "{ledger}");
    assert_eq!(latest["selectors"].as_array().map(Vec::len), Some(20), "{ledger}");
    assert_eq!(entries[1]["selectors"], json!([{ "everything": true }]));
    assert_eq!(entries[2]["selectors"], json!([{ "prefix": "edge.test/a", "raw": true }]));
    let limited = description.check("/v1/ledger", "GET", &edge.admin_get("/v1/ledger?limit=1").await);
    assert_eq!(limited["entries"], json!([latest]));
}

/// The check itself: a field too many or too few, or one of another type, is noticed at every depth.
#[tokio::test]
async fn an_answer_that_is_not_as_described_is_noticed() {
    let origin = origin(&Gate::new()).await;
    let edge = start(&origin, "").await;
    let description = Description::of(&edge).await;
    edge.get("/a").await;
    eventually("an object", async || edge.admin_get("/v1/cache").await.json()["tiers"][0]["objects"] == 1).await;
    for target in ["/v1/config", "/v1/origins", "/v1/cache", "/v1/cache?url=http://edge.test/a"] {
        let answer = edge.admin_get(target).await;
        let path = target.split('?').next().unwrap_or(target);
        description.check(path, "GET", &answer);
        let right = answer.json();
        let schema = &description.operation(path, "GET")["responses"]["200"]["content"]["application/json"]["schema"];
        let refused = |value: &Value, what: &str| {
            assert!(description.valid(schema, value).is_err(), "{target}: {what} is not noticed: {value}");
        };
        for pointer in objects_in(&right, String::new()) {
            let object = |value: &mut Value| value.pointer_mut(&pointer).map(Value::take).expect("the object");
            let with = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
                let mut value = right.clone();
                let mut map = object(&mut value);
                change(map.as_object_mut().expect("an object"));
                *value.pointer_mut(&pointer).expect("its place") = map;
                value
            };
            refused(
                &with(&|map| _ = map.insert("surplus".into(), 1.into())),
                &format!("a field too many in {pointer:?}"),
            );
            for key in right.pointer(&pointer).and_then(Value::as_object).expect("an object").keys() {
                refused(&with(&|map| _ = map.remove(key)), &format!("that {pointer}/{key} is missing"));
                let other = with(&|map| _ = map.insert(key.clone(), json!([["another type"]])));
                refused(&other, &format!("another type of {pointer}/{key}"));
            }
        }
    }
    let mut answer = edge.admin_get("/v1/config").await;
    answer.status = 202;
    let response = &description.operation("/v1/config", "GET")["responses"];
    assert_eq!(response.get(answer.status.to_string()), None);
    let plain = edge.admin_get("/healthz").await;
    assert!(description.check_response(&response["200"], &plain).is_err(), "another media type");
}

/// Where objects are in a value, as JSON pointers.
fn objects_in(value: &Value, pointer: String) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let inner = map.iter().flat_map(|(key, value)| objects_in(value, format!("{pointer}/{key}")));
            inner.chain([pointer.clone()]).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(i, value)| objects_in(value, format!("{pointer}/{i}"))).collect()
        }
        _ => Vec::new(),
    }
}

/// docs/openapi.json, and which of its responses have been seen.
struct Description(Value, Mutex<BTreeSet<(String, String, String)>>);

impl Description {
    /// As the edge itself has it.
    async fn of(edge: &Edge) -> Description {
        let served = edge.admin_get("/v1/openapi.json").await.json();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let text = std::fs::read_to_string(file).expect("docs/openapi.json");
        assert_eq!(served, serde_json::from_str::<Value>(&text).expect("JSON"));
        Description(served, Mutex::default())
    }

    /// Path and method of each operation.
    fn operations(&self) -> Vec<(String, String)> {
        let paths = self.0["paths"].as_object().expect("paths").iter();
        let of = |(path, item): (&String, &Value)| {
            item.as_object()
                .expect("methods")
                .keys()
                .map(|method| (path.clone(), method.to_uppercase()))
                .collect::<Vec<_>>()
        };
        paths.flat_map(of).collect()
    }

    fn operation(&self, path: &str, method: &str) -> &Value {
        &self.0["paths"][path][method.to_lowercase()]
    }

    /// Panics unless the answer is one that the operation is described to give; its body, where that is JSON.
    fn check(&self, path: &str, method: &str, answer: &Response) -> Value {
        let status = answer.status.to_string();
        let response = &self.operation(path, method)["responses"][&status];
        let body = self
            .check_response(response, answer)
            .unwrap_or_else(|why| panic!("{method} {path} is not as described: {why}: {answer:?}"));
        self.1.lock().expect("no panic").insert((path.to_owned(), method.to_owned(), status));
        body
    }

    fn check_response(&self, response: &Value, answer: &Response) -> Result<Value, String> {
        let response = self.resolved(response);
        let Some(content) = response["content"].as_object() else { return Err("the status is not described".into()) };
        let media_type = answer.header("Content-Type").ok_or("there is no Content-Type")?;
        let content = content.get(media_type).ok_or_else(|| format!("{media_type} is not described"))?;
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            if header["required"] == true && answer.header(name).is_none() {
                return Err(format!("there is no {name}"));
            }
        }
        if answer.header("Cache-Control") != Some("no-store") {
            return Err("it may be stored".into());
        }
        let body = match media_type {
            "application/json" => serde_json::from_str(answer.text()).map_err(|why| why.to_string())?,
            _ => Value::from(answer.text()),
        };
        self.valid(&content["schema"], &body).map(|()| body)
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(target) => {
                self.0.pointer(target.trim_start_matches('#')).unwrap_or_else(|| panic!("there is no {target}"))
            }
            None => value,
        }
    }

    /// As much of JSON Schema as the description uses; a keyword beyond that is a panic, so that none is passed over.
    fn valid(&self, schema: &Value, value: &Value) -> Result<(), String> {
        for (keyword, said) in self.resolved(schema).as_object().ok_or("there is no schema")? {
            let number = |value: &Value| value.as_i64().unwrap_or_else(|| panic!("{keyword}: {value}"));
            let holds = match keyword.as_str() {
                "description" | "default" => true,
                "type" => match said {
                    Value::Array(types) => types.iter().any(|said| is_of(said, value)),
                    said => is_of(said, value),
                },
                "const" => said == value,
                "enum" => said.as_array().is_some_and(|values| values.contains(value)),
                "minimum" => !value.is_number() || number(value) >= number(said),
                "maximum" => !value.is_number() || number(value) <= number(said),
                "minItems" => value.as_array().is_none_or(|items| items.len() as i64 >= number(said)),
                "maxItems" => value.as_array().is_none_or(|items| items.len() as i64 <= number(said)),
                "required" => {
                    for name in said.as_array().into_iter().flatten().filter_map(Value::as_str) {
                        value.get(name).ok_or_else(|| format!("`{name}` is missing in {value}"))?;
                    }
                    true
                }
                "properties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        if let Some(schema) = said.get(name) {
                            self.valid(schema, value).map_err(|why| format!("{name}: {why}"))?;
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    assert_eq!(*said, false, "{keyword}");
                    let known = &self.resolved(schema)["properties"];
                    value.as_object().into_iter().flatten().all(|(name, _)| known.get(name).is_some())
                }
                "items" => {
                    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.valid(said, item).map_err(|why| format!("[{i}]: {why}"))?;
                    }
                    true
                }
                "oneOf" => {
                    let tries = said.as_array().expect("a list").iter().map(|schema| self.valid(schema, value));
                    let (right, wrong): (Vec<_>, Vec<_>) = tries.partition(Result::is_ok);
                    if right.len() != 1 {
                        return Err(format!("{} of oneOf are right: {wrong:?}", right.len()));
                    }
                    true
                }
                _ => panic!("{keyword} is no keyword that is checked"),
            };
            if !holds {
                return Err(format!("{value} is not as {keyword}: {said} says"));
            }
        }
        Ok(())
    }

    fn assert_all_checked(&self) {
        let checked = self.1.lock().expect("no panic");
        for (path, method) in self.operations() {
            let responses = self.operation(&path, &method)["responses"].as_object().expect("responses");
            for status in responses.keys().filter(|status| !NOT_ASKED_FOR.contains(&status.as_str())) {
                // A site for every host; and what a ledger answers has a test of its own.
                let elsewhere = path == "/v1/cache" && status == "404"
                    || path == "/v1/purge" && ["200", "503"].contains(&status.as_str())
                    || path == "/v1/ledger" && status == "200";
                let seen = checked.contains(&(path.clone(), method.clone(), status.clone()));
                assert!(seen || elsewhere, "{method} {path} has not been made to answer {status}");
            }
        }
    }
}

fn is_of(said: &Value, value: &Value) -> bool {
    match said.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("null") => value.is_null(),
        _ => panic!("{said} is no type that is checked"),
    }
}
