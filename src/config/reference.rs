//! The reference page, from the same declarations as the parser.

use super::decode::{Decode, Keys, Presence, Shape};
use super::raw;

const PREFACE: &str = "\
# Configuration

<!-- Generated from src/config/raw.rs by `foreland schema --markdown`. Change it there. -->

One YAML file says everything. `foreland check -c FILE` reads it as `run` does and reports every mistake with its line,
column and path; `foreland check -c FILE --effective` prints the whole policy with all defaults filled in.
`foreland schema` prints a JSON Schema for editors.

- **Units stand in every value.** Durations: `ms`, `s`, `m`, `h`, `d`, `w`, also combined (`1h30m`). Sizes: `B`, `KiB`,
  `MiB`, `GiB`, `TiB`, and in powers of ten `kB`, `MB`, `GB`, `TB`. Shares: `%`.
- **Unknown, duplicate and ineffective keys are errors**: nothing in the file is ever ignored.
- **Secrets stand elsewhere** and are named by `env:NAME` (an environment variable) or `file:PATH` (a file; one line
  break at its end is dropped). They are read when the file is loaded, and never printed.
- **Relative paths** start at the configuration file's folder.
- **A request** goes to the site with the exact host, else to the one with the longest matching wildcard, else to the one
  with `*`. Within the site, the first route that matches governs it; without one, the site's own settings do.
- **Cache settings**: a route refines its site's key by key (a list or mapping replaces the site's as a whole).
  `cache: off` turns the cache off. A route's `cache: on`, or settings, turn it on again; where the site's is off, they
  start from the defaults.
- **Guards** (`https`, `hsts`, `access`, `signed_url`, `rate_limit`, `concurrency_limit`, `bandwidth`, `body_size`): each
  that a route gives replaces its site's as a whole; `off` takes it away.
- YAML anchors, aliases and merge keys (`<<`) work; the file is one document of at most 8 MiB.

";

/// Mappings that routes have as sites do.
const SHARED: [&str; 6] = ["cache", "hsts", "access", "rate_limit", "concurrency_limit", "bandwidth"];

/// The reference page as Markdown.
pub fn reference() -> String {
    let mut out = PREFACE.to_owned();
    let mut done = Vec::new();
    section("", &raw::Root::shape(), &mut out, &mut done);
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// A section for each mapping with known keys, in the order in which they are met; `path` is where it stands.
fn section(path: &str, shape: &Shape, out: &mut String, done: &mut Vec<&'static str>) {
    match shape {
        Shape::List { of, .. } => section(&format!("{path}[]"), of, out, done),
        Shape::Map { of, .. } => section(&join(path, "NAME"), of, out, done),
        Shape::Any(shapes) => {
            // A list beside a single value adds nothing but itself.
            for shape in shapes.iter().filter(|s| !matches!(s, Shape::List { .. })) {
                section(path, shape, out, done);
            }
        }
        Shape::Keys(keys) => {
            let keys = keys();
            if !done.contains(&keys.name) {
                done.push(keys.name);
                table(path, &keys, out);
                for field in &keys.fields {
                    section(&join(path, field.name), &(field.shape)(), out, done);
                }
            }
        }
        _ => {}
    }
}

fn table(path: &str, keys: &Keys, out: &mut String) {
    let title = if path.is_empty() { "Top level".to_owned() } else { format!("`{path}`") };
    out.push_str(&format!("## {title}\n\n{}\n\n", line(keys.doc)));
    if let Some(key) = path.strip_prefix("sites[].").filter(|key| SHARED.contains(key)) {
        out.push_str(&format!("`sites[].routes[].{key}` has the same keys.\n\n"));
    }
    out.push_str("| Key | Value | If left out | Meaning |\n|---|---|---|---|\n");
    for field in &keys.fields {
        let absent = match field.presence {
            Presence::Required => "**required**".to_owned(),
            Presence::Default("{}") => "the defaults".to_owned(),
            Presence::Default(default) => format!("`{default}`"),
            Presence::Absent(meaning) => meaning.to_owned(),
        };
        let (name, value) = (field.name, value(&(field.shape)()));
        out.push_str(&format!("| `{name}` | {} | {} | {} |\n", cell(&value), cell(&absent), cell(&line(field.doc))));
    }
    out.push('\n');
    if !keys.later.is_empty() {
        let names: Vec<String> = keys.later.iter().map(|(name, doc)| format!("`{name}` ({})", phrase(doc))).collect();
        out.push_str(&format!("Not yet available: {}.\n\n", names.join(", ")));
    }
}

/// The kind of value, in words.
fn value(shape: &Shape) -> String {
    match shape {
        Shape::Bool => "`true` or `false`".to_owned(),
        Shape::Number { min, max } if min == max => format!("`{min}`"),
        Shape::Number { min, max } => format!("number, {min} to {max}"),
        Shape::Words(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" or "),
        Shape::Text(kind) => kind.name.to_owned(),
        Shape::List { of, .. } => format!("list: {}", value(of)),
        Shape::Map { key, of, .. } => format!("mapping: {} → {}", key.name, value(of)),
        Shape::Keys(_) => "mapping".to_owned(),
        Shape::Any(shapes) => match shapes.as_slice() {
            [one, Shape::List { .. }] => format!("{}, or a list of them", value(one)),
            _ => shapes.iter().map(value).collect::<Vec<_>>().join(" or "),
        },
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A doc comment on one line.
fn line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A doc comment inside a sentence.
fn phrase(doc: &str) -> String {
    let text = line(doc);
    let mut chars = text.trim_end_matches('.').chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
