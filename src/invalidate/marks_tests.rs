use http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::http_cache::Tags;
use crate::site;

fn tags(tags: &[String], groups: &[String]) -> Tags {
    let mut fields = HeaderMap::new();
    fields.insert("surrogate-key", HeaderValue::from_str(&tags.join(" ")).unwrap());
    let groups: Vec<_> = groups.iter().map(|group| format!("{group:?}")).collect();
    fields.insert("cache-groups", HeaderValue::from_str(&groups.join(", ")).unwrap());
    Tags::read(&fields, &[HeaderName::from_static("surrogate-key")]).unwrap()
}

/// Something stored, with what a [`Subject`] borrows.
#[derive(Clone, Debug)]
struct Stored {
    site: String,
    host: String,
    path: String,
    query: Option<String>,
    tags: Vec<String>,
    groups: Vec<String>,
}

impl Stored {
    fn verdict(&self, marks: &Marks, since: u64) -> Verdict {
        let tags = tags(&self.tags, &self.groups);
        let query = self.query.as_deref();
        let parts = site::Parts { zone: &self.site, host: &self.host, path: &self.path, query };
        let subject = Subject { parts, tags: &tags };
        marks.verdict(Some(subject), since)
    }

    /// What the documentation of [`Selector`] says, word by word.
    fn is_selected(&self, selector: &Selector) -> bool {
        let on = |host: &str| host == self.host || self.host.strip_suffix(":8080") == Some(host);
        match selector {
            Selector::Everything => true,
            Selector::Site(name) => **name == *self.site,
            Selector::Host(host) => on(host),
            Selector::Prefix { host, path, raw: true } => on(host) && self.path.starts_with(&**path),
            Selector::Prefix { host, path, raw: false } => {
                let below = if path.ends_with('/') { path.to_string() } else { format!("{path}/") };
                on(host) && (*self.path == **path || self.path.starts_with(&below))
            }
            Selector::Url { host, path, query } => {
                **host == *self.host && **path == *self.path && query.as_deref() == self.query.as_deref()
            }
            Selector::Tag(tag) => self.tags.iter().any(|own| **own == **tag),
            Selector::Group { host, name } => **host == *self.host && self.groups.iter().any(|own| **own == **name),
        }
    }
}

fn host() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a.test", "b.test", "a.test:8080", "[::1]", "[::1]:8080"]).prop_map(str::to_owned)
}

fn path() -> impl Strategy<Value = String> {
    "/[ab]{0,2}(/[ab]{0,2}){0,2}"
}

fn word() -> impl Strategy<Value = String> {
    "[xyz]"
}

fn stored() -> impl Strategy<Value = Stored> {
    let words = || prop::collection::vec(word(), 0..3);
    (word(), host(), path(), prop::option::of("[q]{0,1}"), words(), words())
        .prop_map(|(site, host, path, query, tags, groups)| Stored { site, host, path, query, tags, groups })
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        1 => Just(Selector::Everything),
        2 => word().prop_map(|name| Selector::Site(name.into())),
        2 => host().prop_map(|host| Selector::Host(host.into())),
        6 => (host(), path(), any::<bool>())
            .prop_map(|(host, path, raw)| Selector::Prefix { host: host.into(), path: path.into(), raw }),
        4 => (host(), path(), prop::option::of("[q]{0,1}"))
            .prop_map(|(host, path, query)| Selector::Url { host: host.into(), path: path.into(), query: query.map(Into::into) }),
        4 => word().prop_map(|tag| Selector::Tag(tag.into())),
        2 => (host(), word()).prop_map(|(host, name)| Selector::Group { host: host.into(), name: name.into() }),
    ]
}

fn purges() -> impl Strategy<Value = Vec<(Selector, Option<i64>)>> {
    prop::collection::vec((selector(), prop::option::of(0..1000i64)), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever has been purged, each thing stored fares as it would if all purges were gone through one by one.
    #[test]
    fn a_verdict_is_that_of_all_later_purges(stored in stored(), purges in purges(), since in 0..13u64) {
        let marks = Marks::default();
        let mut expected = Verdict::Alive;
        for (index, (selector, soft)) in purges.iter().enumerate() {
            let sequence = index as u64 + 1;
            let soft = soft.map(Timestamp::from_millis);
            marks.note(selector, sequence, soft);
            if sequence > since && stored.is_selected(selector) {
                expected = expected.and(soft.map_or(Verdict::Dead, Verdict::Stale));
            }
        }
        prop_assert_eq!(stored.verdict(&marks, since), expected);
    }

    /// What has been forgotten concerns nothing that is compared since; what has not, does as before.
    #[test]
    fn forgetting_changes_nothing_for_what_is_later(stored in stored(), purges in purges(), since in 0..13u64, upto in 0..13u64) {
        let (all, some) = (Marks::default(), Marks::default());
        for (index, (selector, soft)) in purges.iter().enumerate() {
            for marks in [&all, &some] {
                marks.note(selector, index as u64 + 1, soft.map(Timestamp::from_millis));
            }
        }
        some.forget(upto, upto);
        if since >= upto {
            prop_assert_eq!(stored.verdict(&some, since), stored.verdict(&all, since));
        }
        let left = purges.iter().enumerate().filter(|(index, _)| *index as u64 >= upto).map(|(_, (selector, _))| selector);
        prop_assert_eq!(some.len(), left.collect::<std::collections::HashSet<_>>().len());
    }
}

fn tag(name: &str) -> Selector {
    Selector::Tag(name.into())
}

fn tagged(name: &str) -> Stored {
    let empty = String::new;
    Stored {
        site: empty(),
        host: empty(),
        path: "/".to_owned(),
        query: None,
        tags: vec![name.to_owned()],
        groups: vec![],
    }
}

#[test]
fn of_very_many_soft_purges_the_earliest_time_is_kept() {
    let (marks, stored) = (Marks::default(), tagged("x"));
    for sequence in 1..=100 {
        marks.note(&tag("x"), sequence, Some(Timestamp::from_millis(sequence as i64 * 10)));
    }
    assert_eq!(stored.verdict(&marks, 0), Verdict::Stale(Timestamp::from_millis(10)));
    assert_eq!(stored.verdict(&marks, 98), Verdict::Stale(Timestamp::from_millis(990)));
    assert_eq!(stored.verdict(&marks, 100), Verdict::Alive);
    // Never later than it was.
    for since in 0..100 {
        let Verdict::Stale(at) = stored.verdict(&marks, since) else { panic!("{since}") };
        assert!(at <= Timestamp::from_millis((since as i64 + 1) * 10), "{since}");
    }
}

/// What is read again of what is kept of the ledger says the same as before.
#[test]
fn of_very_many_soft_purges_all_are_kept_that_the_earliest_time_comes_from() {
    let (marks, again, stored) = (Marks::default(), Marks::default(), tagged("x"));
    let at = |sequence| Some(Timestamp::from_millis(sequence as i64 * 10));
    marks.note(&tag("x"), 1, at(1));
    marks.note(&tag("x"), 2, None);
    (3..=100).for_each(|sequence| marks.note(&tag("x"), sequence, at(sequence)));
    assert!(!marks.is_in_force(&tag("x"), 1));
    let kept = (3..=100).filter(|sequence| marks.is_in_force(&tag("x"), *sequence));
    kept.for_each(|sequence| again.note(&tag("x"), sequence, at(sequence)));
    for since in 2..=100 {
        assert_eq!(stored.verdict(&again, since), stored.verdict(&marks, since), "{since}");
    }
}

#[test]
fn a_purge_is_in_force_until_a_later_one_says_more() {
    let marks = Marks::default();
    let at = Some(Timestamp::from_millis(7));
    marks.note(&tag("x"), 1, at);
    marks.note(&tag("x"), 2, at);
    assert!(marks.is_in_force(&tag("x"), 1) && marks.is_in_force(&tag("x"), 2));
    marks.note(&tag("x"), 3, None);
    assert!(!marks.is_in_force(&tag("x"), 1) && !marks.is_in_force(&tag("x"), 2) && marks.is_in_force(&tag("x"), 3));
    marks.note(&tag("x"), 4, at);
    assert!(marks.is_in_force(&tag("x"), 3) && marks.is_in_force(&tag("x"), 4));
    assert!(!marks.is_in_force(&tag("y"), 4));
}

#[test]
fn what_concerns_nothing_lasting_is_forgotten_sooner() {
    let (marks, stored) = (Marks::default(), tagged("x"));
    marks.note(&tag("x"), 1, None);
    marks.note_passing(&tag("x"), 5);
    marks.note_passing(&tag("y"), 6);
    assert_eq!((stored.verdict(&marks, 4), stored.verdict(&marks, 5)), (Verdict::Dead, Verdict::Alive));
    assert!(marks.is_in_force(&tag("x"), 1) && !marks.is_in_force(&tag("x"), 5));
    marks.forget(0, 6);
    assert_eq!((stored.verdict(&marks, 0), stored.verdict(&marks, 1)), (Verdict::Dead, Verdict::Alive));
    assert_eq!(marks.len(), 1);
    marks.forget(1, 6);
    assert!(marks.is_empty());
}

#[test]
fn only_more_than_urls_is_wide() {
    let marks = Marks::default();
    marks.note(&Selector::Url { host: "a".into(), path: "/".into(), query: None }, 1, None);
    assert!(!marks.is_wide_since(0));
    marks.note(&tag("x"), 2, None);
    assert!(marks.is_wide_since(1) && !marks.is_wide_since(2));
}
