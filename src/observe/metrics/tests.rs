use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render()).unwrap()
}

fn has(metrics: &Metrics, line: &str) {
    let text = text(metrics);
    assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
}

fn finished(status: u16, cache: &'static str) -> Finished {
    Finished {
        status,
        cache,
        tier: (cache == "hit").then_some("memory"),
        bytes_sent: 1000,
        bytes_received: 10,
        duration: Duration::from_micros(300),
        first_byte: Some(Duration::from_micros(200)),
    }
}

#[test]
fn a_request_is_counted_by_site_class_and_cache() {
    let metrics = Metrics::new();
    let site = metrics.site("cdn");
    site.record(&finished(200, "hit"));
    site.record(&finished(206, "hit"));
    site.record(&finished(502, "miss"));
    site.record(&finished(0, "local"));
    site.record(&finished(200, "invented"));
    has(&metrics, r#"foreland_requests_total{site="cdn",status="2xx",cache="hit"} 2"#);
    has(&metrics, r#"foreland_requests_total{site="cdn",status="5xx",cache="miss"} 1"#);
    has(&metrics, r#"foreland_requests_total{site="cdn",status="none",cache="local"} 1"#);
    has(&metrics, r#"foreland_requests_total{site="cdn",status="2xx",cache="other"} 1"#);
    has(&metrics, r#"foreland_cache_hits_total{site="cdn",tier="memory"} 2"#);
    has(&metrics, r#"foreland_cache_hit_bytes_total{site="cdn",tier="memory"} 2000"#);
    has(&metrics, r#"foreland_cache_hits_total{site="cdn",tier="disk"} 0"#);
    has(&metrics, r#"foreland_response_bytes_total{site="cdn"} 5000"#);
    has(&metrics, r#"foreland_request_bytes_total{site="cdn"} 50"#);
    has(&metrics, r#"foreland_request_duration_seconds_bucket{site="cdn",le="0.00025"} 0"#);
    has(&metrics, r#"foreland_request_duration_seconds_bucket{site="cdn",le="0.0005"} 5"#);
    has(&metrics, r#"foreland_request_duration_seconds_bucket{site="cdn",le="+Inf"} 5"#);
    has(&metrics, r#"foreland_request_duration_seconds_count{site="cdn"} 5"#);
    has(&metrics, r#"foreland_request_duration_seconds_sum{site="cdn"} 0.0015"#);
    has(&metrics, r#"foreland_time_to_first_byte_seconds_count{site="cdn"} 5"#);
}

#[test]
fn every_cache_word_has_its_own_series() {
    let metrics = Metrics::new();
    let site = metrics.site("cdn");
    for word in CACHE_WORDS {
        site.record(&finished(200, word));
    }
    for word in CACHE_WORDS {
        has(&metrics, &format!(r#"foreland_requests_total{{site="cdn",status="2xx",cache="{word}"}} 1"#));
    }
}

#[test]
fn a_request_is_in_flight_until_its_guard_is_dropped() {
    let metrics = Metrics::new();
    let site = metrics.site("cdn");
    let one = site.enter();
    let two = site.enter();
    has(&metrics, r#"foreland_requests_in_flight{site="cdn"} 2"#);
    drop(one);
    std::thread::spawn(move || drop(two)).join().unwrap();
    has(&metrics, r#"foreland_requests_in_flight{site="cdn"} 0"#);
}

#[test]
fn connections_are_open_until_their_guard_is_dropped() {
    let metrics = Metrics::new();
    let open = metrics.connection_accepted();
    drop(metrics.connection_accepted());
    metrics.connection_refused(NoRoom::Address);
    assert_eq!(metrics.connections_open(), 1);
    has(&metrics, "foreland_client_connections_open 1");
    has(&metrics, "foreland_client_connections_accepted_total 2");
    has(&metrics, "foreland_client_connections_refused_total{reason=\"address\"} 1");
    drop(open);
    assert_eq!(metrics.connections_open(), 0);
}

#[test]
fn an_origin_counts_what_happened_to_it() {
    let metrics = Metrics::new();
    let origin = metrics.origin("media");
    origin.opened(Duration::from_millis(3));
    origin.reused();
    origin.reused();
    origin.answered(200, Duration::from_millis(30));
    origin.received(70);
    origin.retried();
    for failure in Failure::ALL {
        origin.failed(failure);
    }
    has(&metrics, r#"foreland_origin_connections_total{origin="media",kind="opened"} 1"#);
    has(&metrics, r#"foreland_origin_connections_total{origin="media",kind="reused"} 2"#);
    has(&metrics, r#"foreland_origin_requests_total{origin="media",status="2xx"} 1"#);
    has(&metrics, r#"foreland_origin_response_bytes_total{origin="media"} 70"#);
    has(&metrics, r#"foreland_origin_retries_total{origin="media"} 1"#);
    has(&metrics, r#"foreland_origin_connect_seconds_sum{origin="media"} 0.003"#);
    has(&metrics, r#"foreland_origin_first_byte_seconds_sum{origin="media"} 0.03"#);
    for failure in Failure::ALL {
        let kind = failure.word();
        has(&metrics, &format!(r#"foreland_origin_failures_total{{origin="media",kind="{kind}"}} 1"#));
        assert!(table::ORIGIN_FAILURES.help.contains(kind), "the help does not mention {kind}");
    }
}

#[test]
fn the_same_name_is_the_same_handle_and_too_many_names_are_other() {
    let metrics = Metrics::new();
    let first = metrics.site("site0");
    for n in 0..NAME_LIMIT + 5 {
        metrics.site(&format!("site{n}"));
    }
    assert!(Arc::ptr_eq(&first, &metrics.site("site0")));
    assert_eq!(metrics.site("one more").name(), OTHER);
    assert!(Arc::ptr_eq(&metrics.site("one more"), &metrics.site("yet another")));
    let sites: BTreeSet<_> = text(&metrics)
        .lines()
        .filter(|line| line.starts_with("foreland_requests_in_flight{"))
        .map(str::to_owned)
        .collect();
    assert_eq!(sites.len(), NAME_LIMIT + 1);
}

#[test]
fn a_sample_is_asked_at_each_scrape() {
    let metrics = Metrics::new();
    let objects = Arc::new(Counter::default());
    let asked = Arc::clone(&objects);
    metrics.register(move |out: &mut Samples| {
        out.set(&table::CACHE_OBJECTS, &["memory"], asked.value() as f64);
        out.set(&table::CACHE_EVICTIONS, &["memory"], 2.0);
    });
    metrics.register(|out: &mut Samples| out.set(&table::CACHE_EVICTIONS, &["memory"], 3.0));
    objects.add(7);
    has(&metrics, r#"foreland_cache_objects{tier="memory"} 7"#);
    objects.add(1);
    has(&metrics, r#"foreland_cache_objects{tier="memory"} 8"#);
    has(&metrics, r#"foreland_cache_evictions_total{tier="memory"} 5"#);
}

#[test]
fn the_configuration_in_force_is_the_only_one_shown() {
    let metrics = Metrics::new();
    metrics.config_loaded("aaaa", UNIX_EPOCH + Duration::from_secs(5));
    metrics.config_loaded("bbbb", UNIX_EPOCH + Duration::from_secs(6));
    metrics.reloaded(true);
    metrics.reloaded(false);
    metrics.reloaded(false);
    has(&metrics, r#"foreland_config_info{hash="bbbb"} 1"#);
    has(&metrics, "foreland_config_loaded_timestamp_seconds 6");
    has(&metrics, r#"foreland_config_reloads_total{result="ok"} 1"#);
    has(&metrics, r#"foreland_config_reloads_total{result="failed"} 2"#);
    assert!(!text(&metrics).contains("aaaa"));
}

#[test]
fn a_label_may_hold_anything() {
    let metrics = Metrics::new();
    drop(metrics.site("a\"b\\c\nd").enter());
    has(&metrics, r#"foreland_requests_in_flight{site="a\"b\\c\nd"} 0"#);
}

/// What is declared is exposed once somebody sets it, and nothing else is: names, types and labels.
#[test]
fn the_exposition_is_the_table() {
    let metrics = Metrics::new();
    metrics.site("s").record(&finished(200, "hit"));
    metrics.origin("o").answered(200, Duration::ZERO);
    metrics.config_loaded("h", UNIX_EPOCH);
    metrics.register(|out: &mut Samples| {
        for def in table::ALL.iter().filter(|def| def.kind != table::Kind::Histogram) {
            out.set(def, &vec!["x"; def.labels.len()], 1.0);
        }
        out.durations(&table::DISK_READ, &["x"], Distribution::new(&[1_000], &[1, 2], 9_000));
        out.durations(&table::ORIGIN_SERVER_FIRST_BYTE, &["x", "y"], Distribution::new(&[1_000], &[1, 2], 9_000));
    });
    has(&metrics, r#"foreland_disk_read_seconds_bucket{disk="x",le="0.001"} 1"#);
    has(&metrics, r#"foreland_disk_read_seconds_bucket{disk="x",le="+Inf"} 3"#);
    has(&metrics, r#"foreland_disk_read_seconds_sum{disk="x"} 0.009"#);
    let text = text(&metrics);
    let declared = table::ALL.iter().copied().chain(table::PROCESS);
    let declared: BTreeSet<_> = declared.map(|def| format!("# TYPE {} {}", def.name, def.kind.word())).collect();
    let exposed: BTreeSet<_> = text.lines().filter(|line| line.starts_with("# TYPE")).map(str::to_owned).collect();
    assert_eq!(exposed, declared);
}

#[test]
fn limits_are_counted_by_site_name_and_action() {
    let metrics = Metrics::new();
    metrics.rate_limit("cdn", "api").limited(Limited::Rejected);
    metrics.rate_limit("cdn", "api").limited(Limited::Rejected);
    metrics.rate_limit("cdn", "api").limited(Limited::Delayed);
    metrics.rate_limit("shop", "api").limited(Limited::Logged);
    metrics.concurrency_limit("cdn", "api").refused();
    has(&metrics, r#"foreland_rate_limited_total{site="cdn",limit="api",action="reject"} 2"#);
    has(&metrics, r#"foreland_rate_limited_total{site="cdn",limit="api",action="delay"} 1"#);
    has(&metrics, r#"foreland_rate_limited_total{site="cdn",limit="api",action="log"} 0"#);
    has(&metrics, r#"foreland_rate_limited_total{site="shop",limit="api",action="log"} 1"#);
    has(&metrics, r#"foreland_concurrency_limited_total{site="cdn",limit="api"} 1"#);
}

#[test]
fn limits_without_end_are_one() {
    let metrics = Metrics::new();
    for n in 0..=NAME_LIMIT {
        metrics.concurrency_limit("cdn", &n.to_string()).refused();
    }
    metrics.concurrency_limit("cdn", "one more").refused();
    has(&metrics, r#"foreland_concurrency_limited_total{site="cdn",limit="999"} 1"#);
    has(&metrics, r#"foreland_concurrency_limited_total{site="other",limit="other"} 2"#);
    metrics.concurrency_limit("cdn", "7").refused();
    has(&metrics, r#"foreland_concurrency_limited_total{site="cdn",limit="7"} 2"#);
}
