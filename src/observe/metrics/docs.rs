//! The reference page of the metrics, made from the table.

use std::fmt::Write;

use super::cells::BUCKETS_MICROS;
use super::site::CACHE_WORDS;
use super::table::{ALL, Def, PROCESS};

/// The text of `docs/metrics.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         <!-- Made from the table in src/observe/metrics/table.rs: run the tests with UPDATE_GOLDEN=1. -->\n\n\
         `GET /metrics` on the admin listener answers in the Prometheus text format. If a token is configured, the\n\
         scrape must send it (`authorization` in Prometheus's scrape configuration).\n\n",
    );
    section(&mut page, ALL.iter().copied());
    page.push_str("\n## The process\n\n");
    section(&mut page, PROCESS.iter());
    page.push_str(
        "\n## Labels\n\n\
         - `site`: the site's `name`, else its first host; `-` where no site matched. After 1,000 sites in the life of\n\
         \x20 a process, further ones count as `other`; the same holds for `origin`.\n\
         - `status`: `1xx`, `2xx`, `3xx`, `4xx`, `5xx`, or `none`.\n\
         - `tier`: `memory` or `disk`; the latter stands for all disks together.\n\
         - `disk`: the path of a disk of the disk tier, as configured. Its metrics are there where it is.\n\
         - `direction`: `read` or `write`.\n\
         - `server`: the address of a server, as resolved; a name where it has not been. The series of a server that\n\
         \x20 leaves its origin leave with it.\n\
         - `state`: `open` (in use or not) or `idle`.\n",
    );
    let words: Vec<String> = CACHE_WORDS.iter().map(|word| format!("`{word}`")).collect();
    // Writing to a String cannot fail.
    let _ = writeln!(page, "- `cache`: {}.", words.join(", "));
    let bounds: Vec<String> = BUCKETS_MICROS.iter().map(|bound| (*bound as f64 / 1e6).to_string()).collect();
    let _ = writeln!(
        page,
        "- `le`, the histograms' bounds in seconds: {}. Those of `foreland_disk_read_seconds` are its own.",
        bounds.join(", ")
    );
    page.push_str(
        "\nA series of `foreland_requests_total`, `foreland_origin_requests_total` or `foreland_origin_server_requests_total`\n\
         appears with its first request.\n",
    );
    page
}

fn section<'a>(page: &mut String, defs: impl Iterator<Item = &'a Def>) {
    page.push_str("| Name | Type | Unit | Labels | Meaning |\n| --- | --- | --- | --- | --- |\n");
    for def in defs {
        let labels: Vec<String> = def.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            def.name,
            def.kind.word(),
            def.unit,
            labels.join(", "),
            def.help
        );
    }
}

#[cfg(test)]
mod tests {
    /// Run with `UPDATE_GOLDEN=1` to write the page anew.
    #[test]
    fn the_page_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        let page = super::reference();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &page).expect("docs/metrics.md can be written");
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(stored, page, "docs/metrics.md is not what the table says: run again with UPDATE_GOLDEN=1");
    }
}
