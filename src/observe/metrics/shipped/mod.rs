//! What is shipped for Prometheus and Grafana speaks of metrics that there are.

mod promql;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use promql::Labels;

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The names that follow `mark` in a text.
fn names_after<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    let name = |rest: &'a str| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
    text.split(mark).skip(1).map(|rest| name(rest.trim_start())).collect()
}

fn missing(names: &[&str], labels: &Labels) -> Vec<String> {
    names.iter().filter(|name| !labels.contains(**name)).map(|name| (*name).to_owned()).collect()
}

#[test]
fn alerts_speak_of_metrics_that_there_are() {
    let file: Value = serde_yaml::from_str(&text("conf/prometheus/alerts.yml")).unwrap();
    let rules: Vec<&Value> = list(&file, "groups").iter().flat_map(|group| list(group, "rules")).collect();
    let mut names = BTreeSet::new();
    for rule in &rules {
        let name = word(rule, "alert");
        assert!(name.starts_with("Foreland") && names.insert(name), "{name} twice, or nobody's");
        let labels = promql::labels(word(rule, "expr")).unwrap_or_else(|e| panic!("{name}: {e}"));
        let severity = word(&rule["labels"], "severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        let lasting = word(rule, "for");
        assert!(
            lasting.ends_with(['s', 'm', 'h']) && lasting.starts_with(|c: char| c.is_ascii_digit()),
            "{name}: {lasting}"
        );
        for annotation in ["summary", "description"] {
            let text = word(&rule["annotations"], annotation).trim();
            let missing = missing(&names_after(text, "$labels."), &labels);
            assert!(missing.is_empty(), "{name}: {annotation} tells of {missing:?}, which are not in the result");
            assert_eq!(text.matches("{{").count(), text.matches("}}").count(), "{name}: {text}");
            assert!(!text.is_empty() && (annotation == "summary" || text.ends_with('.')), "{name}: {text}");
        }
    }
    assert!(rules.len() >= 20, "{}", rules.len());
    // Prometheus reads the file by this name.
    let prometheus: Value = serde_yaml::from_str(&text("conf/prometheus/prometheus.yml")).unwrap();
    assert_eq!(list(&prometheus, "rule_files"), ["alerts.yml"]);
}

#[test]
fn the_dashboard_speaks_of_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(&text("conf/grafana/foreland.json")).unwrap();
    let variables: Vec<&Value> = list(&dashboard["templating"], "list").iter().collect();
    let mut declared: Labels = variables.iter().map(|variable| word(variable, "name").to_owned()).collect();
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        let query = word(variable, "definition");
        assert_eq!(variable["query"]["query"], query);
        let (selector, label) = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(','))
            .unwrap_or_else(|| panic!("{query}"));
        let labels = promql::labels(selector).unwrap_or_else(|e| panic!("{e}"));
        assert!(labels.contains(label.trim()), "{query}");
    }
    declared.extend(["__rate_interval", "__range"].map(str::to_owned));
    let panels = list(&dashboard, "panels");
    let (mut ids, mut queries) = (BTreeSet::new(), 0);
    for panel in panels {
        let title = word(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id comes twice");
        for target in list(panel, "targets") {
            let expr = word(target, "expr");
            let unknown = missing(&names_after(expr, "$"), &declared);
            assert!(unknown.is_empty(), "{title}: {unknown:?} are no variables: {expr}");
            let labels = promql::labels(expr).unwrap_or_else(|e| panic!("{title}: {e}"));
            let missing = missing(&names_after(word(target, "legendFormat"), "{{"), &labels);
            assert!(missing.is_empty(), "{title}: the legend tells of {missing:?}, which are not in the result");
            queries += 1;
        }
        assert!(panel["type"] == "row" || !list(panel, "targets").is_empty(), "{title} shows nothing");
    }
    let rows: Vec<&str> = panels.iter().filter(|p| p["type"] == "row").map(|p| word(p, "title")).collect();
    assert_eq!(rows, ["Overview", "Cache", "Disks", "Purging", "Origins", "Guards and TLS", "Process"]);
    assert!(queries >= 50, "{queries}");
}

/// No two panels lie one over the other, and none reaches over the edge.
#[test]
fn the_panels_have_their_places() {
    let dashboard: Value = serde_json::from_str(&text("conf/grafana/foreland.json")).unwrap();
    let mut taken = BTreeSet::new();
    for panel in list(&dashboard, "panels") {
        let of = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(of("x") + of("w") <= 24, "{panel}");
        for x in of("x")..of("x") + of("w") {
            for y in of("y")..of("y") + of("h") {
                assert!(taken.insert((x, y)), "{} lies over another at {x}, {y}", panel["title"]);
            }
        }
    }
}
