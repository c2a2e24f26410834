//! The text exposition of Prometheus, as a map.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<Series, f64>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    /// Sorted by name.
    labels: Vec<(String, String)>,
}

impl Metrics {
    /// Panics at a line that is none of the format, and at a series that comes twice.
    pub fn parse(text: &str) -> Metrics {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (name, value) = sample(line).unwrap_or_else(|| panic!("not a sample: {line:?}"));
            assert!(series.insert(name, value).is_none(), "a series comes twice: {line:?}");
        }
        Metrics(series)
    }

    /// The value of exactly this series, written `name` or `name{label="value",…}` with its labels in any order.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (series, _) = sample(&format!("{series} 0")).unwrap_or_else(|| panic!("not a series: {series:?}"));
        self.0.get(&series).copied()
    }

    /// The sum over the series of this name that have at least these labels; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |s: &Series| labels.iter().all(|(n, v)| s.labels.iter().any(|(sn, sv)| sn == n && sv == v));
        self.0.iter().filter(|(s, _)| s.name == name && has(s)).map(|(_, v)| v).sum()
    }

    /// The names of all families and their parts, without labels.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.0.keys().map(|s| s.name.as_str()).collect();
        names.dedup();
        names
    }
}

fn sample(line: &str) -> Option<(Series, f64)> {
    let at = line.find(['{', ' '])?;
    let name = line[..at].to_owned();
    let (mut labels, mut rest) = (Vec::new(), &line[at..]);
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((label.trim_start_matches(',').trim().to_owned(), value));
            rest = after.trim_start_matches(',');
        }
        rest = &rest[1..];
    }
    labels.sort();
    // A timestamp may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((Series { name, labels }, value))
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[test]
fn reads_the_text_exposition() {
    let text = "# HELP a help\n# TYPE a counter\na_total{site=\"x\",class=\"2xx\"} 3\na_total{site=\"y\\\"}\",class=\"2xx\"} 4\nb 1.5e3\ninf{le=\"+Inf\"} +Inf 17\n";
    let metrics = Metrics::parse(text);
    assert_eq!(metrics.metric("a_total{class=\"2xx\",site=\"x\"}"), Some(3.0));
    assert_eq!(metrics.metric("a_total{class=\"2xx\",site=\"y\\\"}\"}"), Some(4.0));
    assert_eq!(metrics.metric("a_total"), None);
    assert_eq!(metrics.sum("a_total", &[("class", "2xx")]), 7.0);
    assert_eq!(metrics.metric("b"), Some(1500.0));
    assert_eq!(metrics.metric("inf{le=\"+Inf\"}"), Some(f64::INFINITY));
    assert_eq!(metrics.names(), ["a_total", "b", "inf"]);
}
