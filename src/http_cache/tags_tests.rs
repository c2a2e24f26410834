use proptest::prelude::*;

use super::super::testing::headers;
use super::*;

type Fields<'a> = &'a [(&'a str, &'a str)];

const NAMES: [HeaderName; 2] = [SURROGATE_KEY, CACHE_TAG];

fn read(fields: Fields<'_>) -> Tags {
    Tags::read(&headers(fields), &NAMES).unwrap()
}

fn refused(fields: Fields<'_>) -> Unpurgeable {
    Tags::read(&headers(fields), &NAMES).unwrap_err()
}

fn tags(tags: &Tags) -> Vec<&str> {
    tags.tags().collect()
}

fn groups(tags: &Tags) -> Vec<&str> {
    tags.groups().collect()
}

fn encoded(tags: &Tags) -> Vec<u8> {
    let mut bytes = Vec::new();
    tags.encode(&mut bytes);
    bytes
}

/// So many words of so many bytes each, no two the same.
fn words(count: usize, bytes: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:0bytes$}")).collect()
}

#[test]
fn tags_of_all_lines_and_fields_each_once() {
    let mixed = [
        ("cache-tag", "last"),
        ("surrogate-key", "b a,c\td ,\t,  e"),
        ("x-tags", "not-named"),
        ("surrogate-key", ",a,, A b"),
        ("cache-tag", "a last"),
    ];
    assert_eq!(tags(&read(&mixed)), ["b", "a", "c", "d", "e", "A", "last"]);
    assert_eq!(tags(&read(&[("surrogate-key", "größe,日本 \"q,r\" a=b;c")])), ["größe", "日本", "\"q", "r\"", "a=b;c"]);
    for nothing in ["", " ", ",", " \t, ,"] {
        let got = read(&[("surrogate-key", nothing)]);
        assert!(got.is_empty() && got == Tags::default() && got.weight() == 0, "{nothing:?}");
    }
    let other = Tags::read(&headers(&mixed), &["x-tags".parse().unwrap()]).unwrap();
    assert_eq!(tags(&other), ["not-named"]);
    assert!(Tags::read(&headers(&mixed), &[]).unwrap().is_empty());
}

#[test]
fn groups_are_a_list_of_strings() {
    // RFC 9875 §2.
    let cases: &[(&[&str], &[&str])] = &[
        (&[r#""scripts""#], &["scripts"]),
        (&[r#""a", "b";x=1;y, "a""#, r#""B""#], &["a", "b", "B"]),
        (&[r#""with space, comma", "q\"\\""#], &["with space, comma", "q\"\\"]),
        (&[r#""""#], &[""]),
        (&[""], &[]),
        (&["", r#""a""#], &["a"]),
        // RFC 9651 §4.2: ignored as a whole.
        (&["token"], &[]),
        (&[r#""a", token"#], &[]),
        (&[r#""a", ("b")"#], &[]),
        (&[r#""a", 1"#], &[]),
        (&[r#""a", :YQ==:"#], &[]),
        (&[r#""a","#], &[]),
        (&[r#""a"#], &[]),
        (&[r#""ä""#], &[]),
        (&[r#""a""#, "b c"], &[]),
    ];
    for (lines, expected) in cases {
        let fields: Vec<_> = lines.iter().map(|line| ("cache-groups", *line)).collect();
        let got = read(&fields);
        assert_eq!(groups(&got), *expected, "{lines:?}");
        assert_eq!(got.is_empty(), expected.is_empty());
        assert_eq!(tags(&got), [""; 0]);
    }
    let both = read(&[("cache-groups", r#""g", "h""#), ("cache-tag", "t u")]);
    assert_eq!((tags(&both), groups(&both)), (vec!["t", "u"], vec!["g", "h"]));
    // Groups are read whatever lists the tags.
    let fields = headers(&[("cache-groups", r#""g""#), ("cache-tag", "t")]);
    assert_eq!(groups(&Tags::read(&fields, &[]).unwrap()), ["g"]);
}

#[test]
fn what_is_beyond_the_limits_is_not_cut_off() {
    let most = words(Tags::MAX_TAGS, 5);
    assert_eq!(tags(&read(&[("surrogate-key", &most.join(" ")), ("cache-tag", &most[7])])), most);
    let why = refused(&[("surrogate-key", &most.join(" ")), ("cache-tag", "one two")]);
    assert_eq!(why, Unpurgeable::TooMany { field: CACHE_TAG, count: 1002 });
    assert_eq!(why.to_string(), "cache-tag: 1002 tags are more than 1000");

    let longest = "x".repeat(Tags::MAX_TAG_BYTES);
    assert_eq!(tags(&read(&[("cache-tag", &longest)])), [&longest]);
    let why = refused(&[("cache-tag", &format!("a {longest}x"))]);
    assert_eq!(why.to_string(), "cache-tag: a tag of 1025 bytes is longer than 1024");

    let whole = words(32, 1024);
    assert_eq!(tags(&read(&[("surrogate-key", &whole.join(",")), ("cache-tag", &whole[0])])), whole);
    let why = refused(&[("surrogate-key", &whole.join(",")), ("cache-tag", "more")]);
    assert_eq!(why.to_string(), "cache-tag: tags of 32772 bytes in all are longer than 32768");

    let mut fields = HeaderMap::new();
    fields.append(SURROGATE_KEY, http::HeaderValue::from_bytes(b"a gr\xf6\xdfe").unwrap());
    let why = Tags::read(&fields, &NAMES).unwrap_err();
    assert_eq!(why.to_string(), "surrogate-key: a tag is not UTF-8 text");
    // A field that is not read is no obstacle.
    assert!(Tags::read(&fields, &[CACHE_TAG]).unwrap().is_empty());

    let list = |groups: &[String]| groups.iter().map(|group| format!("\"{group}\"")).collect::<Vec<_>>().join(", ");
    let most = words(Tags::MAX_GROUPS, Tags::MAX_GROUP_BYTES);
    assert_eq!(groups(&read(&[("cache-groups", &list(&most))])), most);
    let why = refused(&[("cache-groups", &list(&most)), ("cache-groups", "\"one\"")]);
    assert_eq!(why.to_string(), "cache-groups: 129 groups are more than 128");
    let why = refused(&[("cache-groups", &list(&words(1, Tags::MAX_GROUP_BYTES + 1)))]);
    assert_eq!(why.to_string(), "cache-groups: a group's name of 257 bytes is longer than 256");
    // RFC 9875 §2.
    let enough = words(32, 32);
    assert_eq!(groups(&read(&[("cache-groups", &list(&enough))])), enough);
}

#[test]
fn an_update_replaces_what_it_carries() {
    let stored = read(&[("surrogate-key", "a b"), ("cache-groups", "\"g\"")]);
    let updated = |fields: Fields<'_>| stored.updated(&headers(fields), &NAMES).unwrap();
    assert_eq!(updated(&[("etag", "\"1\"")]), stored);
    let cases: &[(Fields<'_>, &[&str], &[&str])] = &[
        (&[("cache-tag", "c")], &["c"], &["g"]),
        (&[("surrogate-key", "")], &[], &["g"]),
        (&[("cache-groups", "\"h\"")], &["a", "b"], &["h"]),
        (&[("cache-groups", "nonsense")], &["a", "b"], &[]),
        (&[("cache-groups", "\"h\""), ("cache-tag", "b a"), ("surrogate-key", "c")], &["c", "b", "a"], &["h"]),
    ];
    for (update, of_tags, of_groups) in cases {
        let got = updated(update);
        assert_eq!((tags(&got), groups(&got)), (of_tags.to_vec(), of_groups.to_vec()), "{update:?}");
    }
    let long = "x".repeat(Tags::MAX_TAG_BYTES + 1);
    assert!(stored.updated(&headers(&[("cache-tag", &long)]), &NAMES).is_err());
    assert!(stored.updated(&headers(&[("cache-tag", &long)]), &[SURROGATE_KEY]).is_ok());
}

#[test]
fn groups_are_invalidated_by_unsafe_methods_that_succeed() {
    // RFC 9875 §3.
    let after = |method: &str, status: u16, lines: &[&str]| {
        let fields: Vec<_> = lines.iter().map(|line| ("cache-group-invalidation", *line)).collect();
        let status = StatusCode::from_u16(status).unwrap();
        invalidated_groups(&Method::from_bytes(method.as_bytes()).unwrap(), status, &headers(&fields))
    };
    let lines = [r#""a", "b";x"#, r#""a", "c""#];
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"] {
        assert_eq!(after(method, 204, &lines), ["a", "b", "c"], "{method}");
        assert_eq!(after(method, 303, &lines), ["a", "b", "c"], "{method}");
        assert_eq!(after(method, 404, &lines), [""; 0], "{method}");
        assert_eq!(after(method, 500, &lines), [""; 0], "{method}");
    }
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"] {
        assert_eq!(after(method, 200, &lines), [""; 0], "{method}");
    }
    assert_eq!(after("POST", 200, &[r#""a", b"#]), [""; 0]);
    assert_eq!(after("POST", 200, &[]), [""; 0]);
    let long = format!("\"{}\", \"a\"", "x".repeat(Tags::MAX_GROUP_BYTES + 1));
    assert_eq!(after("POST", 200, &[&long]), ["a"]);
    let many: Vec<String> = words(MAX_INVALIDATED_GROUPS + 1, 4).iter().map(|group| format!("\"{group}\"")).collect();
    assert_eq!(after("POST", 200, &[&many.join(",")]).len(), MAX_INVALIDATED_GROUPS);
}

#[test]
fn only_what_encode_makes_is_decoded() {
    let some = read(&[("surrogate-key", "a bb"), ("cache-groups", r#""g", """#)]);
    assert_eq!(encoded(&some), b"\x05\0\0\0a\nbb\ng\n\n");
    assert_eq!(encoded(&Tags::default()), b"");
    for wrong in [
        &b"\0"[..],
        b"\0\0\0\0",
        b"\x01\0\0\0",
        b"\x02\0\0\0a",
        b"\x03\0\0\0a\n",
        b"\xff\xff\xff\xffa\n",
        b"\x01\0\0\0a\n",
        b"\0\0\0\0a",
        b"\0\0\0\0a\nb",
        b"\x01\0\0\0\n",
        b"\x04\0\0\0a\na\n",
        b"\0\0\0\0a\na\n",
        b"\0\0\0\0\n\n",
        b"\x04\0\0\0a b\n",
        b"\x04\0\0\0a,b\n",
        b"\x04\0\0\0a\0b\n",
        b"\x02\0\0\0\xff\n",
        b"\x02\0\0\0\xc3\n",
        b"\x02\0\0\0\xc3\xa4\n",
        b"\0\0\0\0\xc3\xa4\n",
        b"\0\0\0\0a\tb\n",
    ] {
        assert_eq!(Tags::decode(wrong), None, "{}", wrong.escape_ascii());
    }
    let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let as_tags = |lines: &[String]| {
        let text = text(lines);
        Tags::decode(&[&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()).is_some()
    };
    assert!(as_tags(&words(1000, 5)) && !as_tags(&words(1001, 5)));
    assert!(as_tags(&words(1, 1024)) && !as_tags(&words(1, 1025)));
    assert!(as_tags(&words(32, 1024)) && !as_tags(&words(33, 1024)));
    let as_groups = |lines: &[String]| Tags::decode(&[&[0; 4], text(lines).as_bytes()].concat()).is_some();
    assert!(as_groups(&words(128, 256)) && !as_groups(&words(129, 5)) && !as_groups(&words(1, 257)));
}

/// A line of a header section, of the bytes that matter and some that do not.
fn any_line() -> impl Strategy<Value = http::HeaderValue> {
    let mixed = prop_oneof![
        "[ab ,\t\"]{0,20}".prop_map(String::into_bytes),
        "(\"[ab ]{0,3}\"(;x=1)?(, ?)?){0,5}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    mixed.prop_filter_map("no field value", |bytes| http::HeaderValue::from_bytes(&bytes).ok())
}

fn any_fields() -> impl Strategy<Value = HeaderMap> {
    let name = proptest::sample::select(vec![SURROGATE_KEY, CACHE_TAG, CACHE_GROUPS, CACHE_GROUP_INVALIDATION]);
    proptest::collection::vec((name, any_line()), 0..8).prop_map(|lines| {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name, value);
        }
        fields
    })
}

proptest! {
    /// Whatever is read is kept and found again as it was.
    #[test]
    fn decode_gives_back_what_encode_made(fields in any_fields(), update in any_fields()) {
        invalidated_groups(&Method::POST, StatusCode::OK, &fields);
        if let Ok(tags) = Tags::read(&fields, &NAMES) {
            prop_assert_eq!(Tags::decode(&encoded(&tags)), Some(tags.clone()));
            prop_assert_eq!(tags.updated(&HeaderMap::new(), &NAMES), Ok(tags.clone()));
            if let Ok(updated) = tags.updated(&update, &NAMES) {
                prop_assert_eq!(Tags::decode(&encoded(&updated)), Some(updated));
            }
        }
    }

    /// Of bytes that encode did not make, nothing is made.
    #[test]
    fn whatever_is_decoded_encodes_to_the_same(at in 0u32..12, text in "[ab\n,ä]{0,12}") {
        let bytes = [&at.to_le_bytes()[..], text.as_bytes()].concat();
        if let Some(tags) = Tags::decode(&bytes) {
            prop_assert_eq!(encoded(&tags), bytes);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        _ = Tags::decode(&bytes);
    }

    /// What stands between tags does not matter, nor where a line ends, nor what has been said before.
    #[test]
    fn separators_do_not_matter(
        words in proptest::collection::vec(("[a-c]{1,2}", "[ ,\t]{1,3}", any::<bool>()), 0..20),
    ) {
        let mut first: Vec<&str> = Vec::new();
        let (mut line, mut lines) = (String::new(), HeaderMap::new());
        for (word, separator, ends) in &words {
            if !first.contains(&word.as_str()) {
                first.push(word);
            }
            line.push_str(word);
            line.push_str(separator);
            if *ends {
                lines.append(SURROGATE_KEY, std::mem::take(&mut line).parse().unwrap());
            }
        }
        lines.append(SURROGATE_KEY, line.parse().unwrap());
        let got = Tags::read(&lines, &NAMES).unwrap();
        prop_assert_eq!(tags(&got), first);
    }
}
