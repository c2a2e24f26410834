use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::admin::reply::SHOWN;

fn error(body: &str) -> Refused {
    read(body.as_bytes()).expect_err(body)
}

#[test]
fn each_key_is_read_into_its_place() {
    let body = r#"{"urls": ["http://a/", "\u0062"], "hosts": ["h"], "prefixes": ["p"], "tags": ["t"], "sites": ["s"],
        "everything": true, "soft": true, "raw": true}"#;
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let expected = Purge {
        urls: texts(&["http://a/", "b"]),
        hosts: texts(&["h"]),
        prefixes: texts(&["p"]),
        tags: texts(&["t"]),
        sites: texts(&["s"]),
        everything: true,
        soft: true,
        raw: true,
    };
    assert_eq!(read(body.as_bytes()), Ok(expected));
    assert_eq!(read(br#" {"everything":true} "#), Ok(Purge { everything: true, ..Purge::default() }));
}

#[test]
fn what_is_wrong_is_named_by_its_place() {
    for (body, words) in [
        ("", &["JSON", "line 1"] as &[_]),
        ("{\"tags\": [\"a\",]}", &["JSON", "line 1 column 15"]),
        ("{\"tags\": [\"a\"]} x", &["JSON", "trailing"]),
        ("{\"tags\": [\"\\ud800\"]}", &["JSON"]),
        ("{\"tags\": [1e999]}", &["JSON"]),
        ("null", &["object", "null"]),
        ("[\"a\"]", &["object", "a list"]),
        ("{}", &["nothing is selected"]),
        (r#"{"tags": [], "everything": false, "soft": true}"#, &["nothing is selected"]),
        (r#"{"tag": ["a"]}"#, &["\"tag\"", "tags"]),
        (r#"{"tags": ["a"], "tags": []}"#, &["`tags`", "twice"]),
        (r#"{"tags": ["a"], "t\u0061gs": []}"#, &["`tags`", "twice"]),
        (r#"{"everything": true, "everything": true}"#, &["`everything`", "twice"]),
        (r#"{"tags": "a"}"#, &["`tags`", "a list", "a string"]),
        (r#"{"tags": null}"#, &["`tags`", "null"]),
        (r#"{"tags": {"a": {"b": []}}}"#, &["`tags`", "an object"]),
        (r#"{"tags": ["a"], "soft": "yes"}"#, &["`soft`", "true or false", "a string"]),
        (r#"{"tags": ["a"], "raw": 1}"#, &["`raw`", "not 1"]),
        (r#"{"everything": [true]}"#, &["`everything`", "a list"]),
        (r#"{"a": 1, "soft": 2, "tags": 3}"#, &["\"a\"", "`soft`", "`tags`"]),
    ] {
        let Refused { error, selectors } = error(body);
        assert!(words.iter().all(|word| error.contains(word)), "{body}: {error}");
        assert_eq!(selectors, [], "{body}");
    }
}

#[test]
fn each_wrong_selector_is_named() {
    let body = r#"{"urls": ["a", "", "b", 3, -4, 0.5], "sites": [["x"], null, {"a": [1]}, true], "tags": ["t"]}"#;
    let Refused { error, selectors } = error(body);
    assert!(error.contains("8 selectors"), "{error}");
    let told: Vec<_> = selectors.iter().map(|it| (it.list, it.index, it.value.as_str())).collect();
    let expected = [
        ("urls", 1, ""),
        ("urls", 3, "3"),
        ("urls", 4, "-4"),
        ("urls", 5, "5e-1"),
        ("sites", 0, "a list"),
        ("sites", 1, "null"),
        ("sites", 2, "an object"),
        ("sites", 3, "true"),
    ];
    assert_eq!(told, expected);
    assert!(selectors.iter().all(|it| !it.why.is_empty()));
    let Refused { error, selectors } = read(br#"{"urls": [""], "more": 1}"#).unwrap_err();
    assert!(error.contains("\"more\"") && selectors.len() == 1, "{error}");
}

#[test]
fn there_are_at_most_so_many_selectors_over_all_lists() {
    let many = |tags: usize, everything: bool| {
        json!({ "tags": vec!["t"; tags], "urls": ["u"], "everything": everything }).to_string()
    };
    let most = Entry::MAX_SELECTORS;
    assert_eq!(read(many(most - 1, false).as_bytes()).unwrap().tags.len(), most - 1);
    assert!(error(&many(most, false)).error.contains("10001 selectors"));
    assert!(error(&many(most - 1, true)).error.contains("10001 selectors"));
    assert!(error(&many(20 * most, false)).error.contains("200001 selectors"));
    let wrong = json!({ "tags": vec![""; 20 * most] }).to_string();
    assert!(error(&wrong).selectors.len() <= most);
}

#[test]
fn what_is_repeated_is_short() {
    let key = "é".repeat(100_000);
    let refused = error(&format!("{{\"{key}\": 1}}"));
    assert!(refused.error.len() < 2 * SHOWN, "{}", refused.error.len());
    let body = (0..1000).map(|n| format!("\"k{n}\": 1")).collect::<Vec<_>>().join(",");
    let refused = error(&format!("{{{body}}}"));
    assert!(refused.error.ends_with("; and more") && refused.error.len() < 4096, "{}", refused.error);
    assert_eq!(shown(&"a".repeat(SHOWN)), "a".repeat(SHOWN));
    assert_eq!(shown(&"a".repeat(SHOWN + 1)), "a".repeat(SHOWN) + "…");
    // Of two bytes: one that would go beyond is left out whole.
    assert_eq!(shown(&format!("a{}", "é".repeat(SHOWN))), format!("a{}…", "é".repeat((SHOWN - 1) / 2)));
}

/// So deep that a reader which follows runs out of stack.
#[test]
fn depth_is_refused_or_passed_over() {
    for body in ["{\"tags\": ".to_owned() + &"[".repeat(1_000_000), "[".repeat(1_000_000), "{\"a\":".repeat(1_000_000)]
    {
        assert!(!error(&body).error.is_empty());
    }
}

fn any_list() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("\\PC{1,8}", 0..4)
}

prop_compose! {
    fn any_purge()(
        urls in any_list(), hosts in any_list(), prefixes in any_list(), tags in any_list(), sites in any_list(),
        (everything, soft, raw) in any::<(bool, bool, bool)>(),
    ) -> Purge {
        Purge { urls, hosts, prefixes, tags, sites, everything, soft, raw }
    }
}

fn body_of(purge: &Purge) -> serde_json::Value {
    let Purge { urls, hosts, prefixes, tags, sites, everything, soft, raw } = purge;
    json!({
        "urls": urls, "hosts": hosts, "prefixes": prefixes, "tags": tags, "sites": sites,
        "everything": everything, "soft": soft, "raw": raw,
    })
}

proptest! {
    /// What is written is what is read, whatever is left out for being as by default.
    #[test]
    fn a_purge_is_read_as_it_is_written(purge in any_purge(), leave_out: bool) {
        let mut body = body_of(&purge);
        if leave_out {
            body.as_object_mut().unwrap().retain(|_, value| *value != json!([]) && *value != json!(false));
        }
        let empty = Purge { soft: purge.soft, raw: purge.raw, ..Purge::default() };
        match read(body.to_string().as_bytes()) {
            Ok(read) => prop_assert_eq!(read, purge),
            Err(refused) => prop_assert_eq!(&purge, &empty, "{:?}", refused),
        }
    }

    /// No value but the one that belongs there is taken, wherever it is put.
    #[test]
    fn one_wrong_value_is_enough(purge in any_purge(), at in 0..KEYS.len(), wrong in 0..4usize) {
        let mut body = body_of(&Purge { everything: true, ..purge });
        body[KEYS[at]] = [json!(null), json!(7), json!("true"), json!([""])][wrong].clone();
        prop_assert!(read(body.to_string().as_bytes()).is_err(), "{}", body);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{}\",:a-z0-9 \\\\]{0,64}") {
        _ = read(&bytes);
        _ = read(text.as_bytes());
        _ = read(format!("{{\"tags\":{text}").as_bytes());
    }
}
