//! What the YAML says, and what has been checked.
//!
//! Text → [`node`] (a tree that remembers places) → [`raw`] (typed, key by key) → [`check`] (what only holds or fails
//! as a whole) → [`Config`]. Mistakes are collected on the way and reported together.

pub mod certificate;
mod check;
mod decode;
mod effective;
pub mod model;
pub mod networks;
mod node;
pub mod pattern;
pub(crate) mod pem;
mod places;
mod raw;
mod reference;
mod report;
mod restart;
mod schema;
mod units;
mod words;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

pub use effective::{cache_settings, effective, guard_settings, show_key, show_rate};
pub use model::Config;
pub use places::{Places, PolicyPlaces, RoutePlaces, SitePlaces};
pub use reference::reference;
pub(crate) use report::suggest;
pub use report::{Errors, Finding, Mark, Place};
pub use restart::needs_restart;
pub use schema::schema;
pub use units::{show_duration, show_size};

use decode::{Placed, Trail};
use node::{Node, Value};
use report::Report;

/// The largest file that is read.
const LARGEST_FILE: u64 = 8 << 20;

/// Reads and checks a file. Relative paths in it start at its folder; secrets are read.
///
/// # Errors
/// Every mistake in the file, in file order; or why it cannot be read.
pub fn load(path: &Path) -> Result<Config, Errors> {
    let file = path.display().to_string();
    let bytes = read(path).map_err(|why| Errors::whole(&file, why))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Absolute, so that what is resolved keeps its meaning should the process change its directory.
    let base = std::path::absolute(folder).map_err(|why| Errors::whole(&file, format!("cannot be located: {why}")))?;
    from_bytes(&bytes, Some(path), &base, &|name| std::env::var_os(name))
}

/// Checks a text. `source` is what errors call it; relative paths start at `base`.
///
/// # Errors
/// Every mistake in the text, in its order.
pub fn parse(text: &str, source: Option<&Path>, base: &Path) -> Result<Config, Errors> {
    from_bytes(text.as_bytes(), source, base, &|name| std::env::var_os(name))
}

/// Messages about one list of servers. One with more mistakes is better read from the top again.
const LIST_MESSAGES: usize = 100;

/// Reads a list of servers, in YAML or JSON, of what an origin's `servers` takes; it may be empty. Relative paths in it
/// start at `folder`.
///
/// # Errors
/// Every mistake in the text, in its order, as `LINE:COLUMN: PATH: MESSAGE`.
pub fn servers_list(text: &str, folder: &Path) -> Result<Vec<model::Server>, Vec<String>> {
    check::listed(text, folder).map_err(|findings| {
        let mut messages: Vec<String> = findings.iter().take(LIST_MESSAGES).map(Finding::without_file).collect();
        if let Some(more) = findings.len().checked_sub(LIST_MESSAGES).filter(|more| *more > 0) {
            messages.push(format!("and {more} more errors"));
        }
        messages
    })
}

/// Looks up an environment variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn from_bytes(bytes: &[u8], source: Option<&Path>, base: &Path, env: Env<'_>) -> Result<Config, Errors> {
    let file = source.map_or_else(|| "(built in)".to_owned(), |path| path.display().to_string());
    let text = utf8(bytes).map_err(|finding| Errors::new(&file, vec![finding]))?;
    let node = Node::parse(text).map_err(|finding| Errors::new(&file, vec![finding]))?;
    if node.value == Value::Null {
        return Err(Errors::whole(
            &file,
            "the file is empty; at least listeners, origins and sites are needed".to_owned(),
        ));
    }
    let mut report = Report::default();
    let root = Placed::<raw::Root>::decode(&node, &Trail::ROOT, &mut report);
    let config = root.as_ref().and_then(|root| check::check(root, base, env, &mut report));
    if !report.errors.is_empty() {
        return Err(Errors::new(&file, report.errors));
    }
    let Some(mut config) = config else {
        return Err(Errors::whole(&file, "the checks failed without saying why; this is a bug in Foreland".to_owned()));
    };
    report.warnings.sort_by_key(|w| w.place.mark);
    config.warnings = report.warnings.iter().map(|w| w.line(&file)).collect();
    config.source = source.map(Path::to_owned);
    config.hash = Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect();
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|why| format!("cannot be opened: {why}"))?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(|why| format!("cannot be read: {why}"))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(format!("larger than {}", units::show_size(LARGEST_FILE)));
    }
    Ok(bytes)
}

fn utf8(bytes: &[u8]) -> Result<&str, Finding> {
    std::str::from_utf8(bytes).map_err(|why| {
        let before = &bytes[..why.valid_up_to()];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        let column = 1 + String::from_utf8_lossy(&before[line_start..]).chars().count();
        let place = Place { mark: Mark { line, column }, path: String::new() };
        Finding { place, message: "not UTF-8 from here on".to_owned() }
    })
}
