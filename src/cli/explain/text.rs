//! An explanation as text: a label in front of each part, a line for each thing that is to be said of it.

use std::fmt::Write;
use std::time::Duration;

use super::report::{Again, At, Cache, Explanation, Facts, Governed, Response, Setting, Verdict};
use crate::config::show_duration;

/// Characters of one line. What is cut off can be read in the JSON.
const LONGEST: usize = 1000;

/// The explanation as lines.
pub fn render(explanation: &Explanation) -> String {
    let mut lines = Lines::default();
    let (request, client) = (&explanation.request, &explanation.client);
    let host = request.host.as_deref().unwrap_or("no host");
    lines.part("request", format!("{} {} of {host}", request.method, request.target));
    let client = match (&client.address, client.trusted) {
        (Some(address), true) => format!("{address}, through a trusted proxy"),
        (Some(address), false) => format!("{address}, not a trusted proxy"),
        (None, _) => "not a trusted proxy".to_owned(),
    };
    lines.part("client", client);
    let known = &explanation.client;
    let asn = known.asn.map(|asn| format!("AS {asn}"));
    let country = known.country.as_ref().map(|country| format!("country {country}"));
    let named = (!known.identities.is_empty()).then(|| format!("certificate of {}", known.identities.join(", ")));
    let secure = known.secure.then(|| "by https".to_owned());
    let known: Vec<String> = [secure, named, country, asn].into_iter().flatten().collect();
    if !known.is_empty() {
        lines.more(known.join(", "));
    }
    if let Some(refused) = &explanation.refused {
        lines.part("refused", format!("{} {}", refused.status, refused.text));
        lines.more(&refused.reason);
    }
    if let Some(governed) = &explanation.governed {
        govern(&mut lines, governed);
    }
    for dropped in &explanation.dropped {
        lines.part("dropped", format!("{}: {}", dropped.field, dropped.why));
    }
    for rewritten in &explanation.rewritten {
        let value = rewritten.value.as_ref().map_or("is dropped".to_owned(), |value| format!("becomes {value}"));
        lines.part("rewritten", format!("{} {value}: {}", rewritten.field, rewritten.why));
    }
    if let Some(governed) = &explanation.governed {
        cache(&mut lines, &governed.cache);
        if let Some(key) = &governed.key {
            lines.part("key", &key.text);
            lines.more(format!("hash {}", key.hash));
        }
        settings(&mut lines, &governed.settings);
        if let Some(response) = &governed.response {
            answer(&mut lines, response);
        }
    }
    lines.text
}

#[derive(Default)]
struct Lines {
    text: String,
    /// The label of the latest line.
    label: &'static str,
}

impl Lines {
    /// A line with a label in front, unless the line before has the same.
    fn part(&mut self, label: &'static str, line: impl AsRef<str>) {
        let shown = if label == self.label { "" } else { label };
        self.label = label;
        self.line(shown, line.as_ref());
    }

    /// Another line of the same part.
    fn more(&mut self, line: impl AsRef<str>) {
        self.line("", line.as_ref());
    }

    fn line(&mut self, label: &str, line: &str) {
        let line = printable(line);
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{}", format!("{label:<10}{line}").trim_end());
    }
}

/// As it is safe to print, and no longer than a screen: what comes from clients and origins does not move the cursor.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST {
            out.push('…');
            break;
        }
        let turns =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || turns { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

fn govern(lines: &mut Lines, governed: &Governed) {
    let site = &governed.site;
    lines.part("site", format!("{}{}, by its host {}{}", site.name, near(&site.at), site.host, near(&site.host_at)));
    match &governed.route {
        Some(route) => {
            lines.part("route", format!("{}{}: {}", route.name, near(&route.at), route.conditions.join(", ")));
        }
        None => lines.part("route", "none: the site's own settings"),
    }
    for route in &governed.passed_over {
        lines.more(format!("not {}{}: {}", route.name, near(&route.at), route.why));
    }
    if governed.passed_over_omitted > 0 {
        lines.more(format!("and not {} more (--verbose)", governed.passed_over_omitted));
    }
    if let Some(purge) = &governed.purge {
        return lines.part("purge", purge);
    }
    for guard in &governed.guards {
        let name = guard.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        lines.part("guards", format!("{}{name}{} {}: {}", guard.guard, near(&guard.at), guard.verdict, guard.why));
    }
    let origin = &governed.origin;
    let host = match origin.host.as_str() {
        "client" => "as the client asks for it".to_owned(),
        "server" => "of the server".to_owned(),
        name => name.to_owned(),
    };
    let named = origin.named_at.as_ref().map(|at| format!(", named at {}", place(at))).unwrap_or_default();
    lines.part("origin", format!("{}{}{named}", origin.name, near(&origin.at)));
    lines.more(format!("asked for {}, Host {host}", origin.target));
}

fn cache(lines: &mut Lines, cache: &Cache) {
    match &cache.bypass {
        None => lines.part("cache", "used: answers from the store, and stores the response if it may"),
        Some(bypass) => lines.part("cache", format!("not used ({}): {}", bypass.word, bypass.why)),
    }
    for note in &cache.notes {
        lines.more(format!("{}: {}", note.what, note.effect));
    }
}

fn settings(lines: &mut Lines, settings: &[Setting]) {
    let width = |of: fn(&Setting) -> usize| settings.iter().map(of).max().unwrap_or(0).min(30);
    let (name, value) = (width(|s| s.name.chars().count()), width(|s| s.value.chars().count()));
    for setting in settings {
        let at = setting.at.as_ref().map_or_else(|| "default".to_owned(), place);
        lines.part("settings", format!("{:<name$}  {:<value$}  {at}", setting.name, setting.value));
    }
}

fn answer(lines: &mut Lines, response: &Response) {
    match &response.not_stored {
        None if response.for_later_gets => {
            lines.part("response", format!("{}, stored for later GETs (RFC 9110 §9.3.3)", response.status));
        }
        None => lines.part("response", format!("{}, stored", response.status)),
        Some(Verdict { word, why }) => {
            lines.part("response", format!("{}, not stored ({word}): {why}", response.status));
        }
    }
    if let Some(facts) = &response.facts {
        lines.more(format!("directives are those of {}", response.governed_by));
        stored(lines, facts);
    }
    for stripped in &response.stripped {
        lines.more(format!("without {}: {}", stripped.field, stripped.why));
    }
    for target in &response.invalidates {
        lines.more(format!("invalidates {target} (RFC 9111 §4.4)"));
    }
    lines.more(format!("Cache-Status: {}", response.cache_status));
    match &response.again {
        Some(again) => once_more(lines, again),
        None => lines.part("again", "the origin is asked, as the first time"),
    }
}

fn stored(lines: &mut Lines, facts: &Facts) {
    let lifetime = show_duration(Duration::from_millis(facts.lifetime_ms));
    lines.more(format!("lifetime {lifetime} ({}): {}", facts.source.word, facts.source.why));
    let fresh = match facts.fresh_for_ms {
        left if left > 0 => format!("fresh for {}", span(left)),
        left => format!("stale for {} already", span(left)),
    };
    lines.more(format!("age on arrival {}, {fresh}", span(facts.initial_age_ms)));
    let windows = [
        ("while it is refreshed", facts.stale_while_revalidate_ms),
        ("when the origin fails", facts.stale_if_error_ms),
    ];
    for (when, window) in windows.into_iter().filter(|(_, window)| *window > 0) {
        lines.more(format!("then served stale {when}, for {}", span(window)));
    }
    for (said, rule) in [
        (facts.must_revalidate && !facts.no_cache, "never served stale (RFC 9111 §4.2.4)"),
        (facts.no_cache, "never served without a validation (RFC 9111 §5.2.2.4)"),
        (facts.immutable, "immutable: a reload does not validate it while it is fresh (RFC 8246)"),
    ] {
        if said {
            lines.more(rule);
        }
    }
    if let Some(variant) = &facts.variant {
        lines.more(format!("a variant by {}: {variant}", facts.varies_on.join(", ")));
    }
}

fn once_more(lines: &mut Lines, again: &Again) {
    let status = again.status.map(|status| format!(", {status}")).unwrap_or_default();
    let after = show_duration(Duration::from_secs(again.after_seconds.into()));
    lines.part("again", format!("after {after}: {}{status}: {}", again.reuse.word, again.reuse.why));
    lines.more(format!("age {}s, ttl {}s", again.age_seconds, again.ttl_seconds));
    for validator in &again.validators {
        lines.more(format!("the origin is asked with {validator}"));
    }
    if again.validators.is_empty() && again.reuse.word == "revalidate" {
        lines.more("the origin is asked without a condition: there is no validator");
    }
    if again.stale_if_error {
        lines.more("should the origin fail, it is served all the same (RFC 5861 §4)");
    }
    lines.more(format!("Cache-Status: {}", again.cache_status));
}

/// A length of time whose sign is said otherwise.
fn span(millis: i64) -> String {
    show_duration(Duration::from_millis(millis.unsigned_abs()))
}

fn near(at: &Option<At>) -> String {
    at.as_ref().map(|at| format!(" ({})", place(at))).unwrap_or_default()
}

fn place(at: &At) -> String {
    format!("{}:{}:{}", at.file, at.line, at.column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_moves_the_cursor_or_fills_the_screen() {
        assert_eq!(printable("a\u{1b}[2J\r\nb\u{202e}ü"), "a\\u{1b}[2J\\u{d}\\u{a}b\\u{202e}ü");
        let long = printable(&"x".repeat(5000));
        assert_eq!((long.chars().count(), long.ends_with("x…")), (LONGEST + 1, true));
    }

    #[test]
    fn a_label_stands_once() {
        let mut lines = Lines::default();
        lines.part("a", "1");
        lines.part("a", "2");
        lines.more("3");
        lines.part("b", "4");
        assert_eq!(lines.text, "a         1\n          2\n          3\nb         4\n");
    }
}
