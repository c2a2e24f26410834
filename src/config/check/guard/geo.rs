//! Databases of addresses. What they hold is looked at by whoever opens them.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::resolve;
use crate::config::decode::Placed;
use crate::config::model::Geo;
use crate::config::raw;
use crate::config::report::{Place, Report};
use crate::config::words::FilePath;

/// The largest database that is read: those of all cities are not a tenth of it.
const LARGEST: u64 = 2 << 30;

pub(in crate::config::check) fn geo(root: &raw::Root, base: &Path, report: &mut Report) -> Option<Geo> {
    let Some(raw) = &root.geo else {
        return (!report.is_wrong("geo")).then(Geo::default);
    };
    let known = report.errors.len();
    let country = raw.country.as_ref().and_then(|path| database(path, base, report));
    let asn = raw.asn.as_ref().and_then(|path| database(path, base, report));
    if raw.country.is_none() && raw.asn.is_none() && !report.is_wrong(&raw.place.path) {
        report.error(&raw.place, "a database is needed: `country`, `asn` or both");
    }
    for (header, name, database, of) in [
        (&raw.country_header, "country_header", &raw.country, "country"),
        (&raw.asn_header, "asn_header", &raw.asn, "asn"),
    ] {
        if let (Some(header), None) = (header, database)
            && !report.is_wrong(&format!("{}.{of}", raw.place.path))
        {
            report.error(&header.place, format!("`{name}` has no effect without `{of}`"));
        }
    }
    if let (Some(country), Some(asn)) = (&raw.country_header, &raw.asn_header)
        && country.0 == asn.0
    {
        report.error(&asn.place, format!("`{}` is already the `country_header`", asn.0));
    }
    let header = |header: &Option<Placed<crate::config::words::EdgeField>>| header.as_ref().map(|name| name.0.clone());
    (report.errors.len() == known).then(|| Geo {
        country,
        asn,
        country_header: header(&raw.country_header),
        asn_header: header(&raw.asn_header),
    })
}

/// A file that can be read and is of a size that can be.
fn database(raw: &Placed<FilePath>, base: &Path, report: &mut Report) -> Option<PathBuf> {
    let path = resolve(base, &raw.0);
    match readable(&path) {
        Ok(()) => Some(path),
        Err(why) => {
            report.error(&raw.place, format!("{} {why}", path.display()));
            None
        }
    }
}

fn readable(path: &Path) -> Result<(), String> {
    // Looked at before it is opened: a pipe would be waited for.
    let found = std::fs::metadata(path).map_err(|why| format!("cannot be opened: {why}"))?;
    if !found.is_file() {
        return Err("is not a file".to_owned());
    }
    if found.len() > LARGEST {
        return Err(format!("is larger than {} GiB", LARGEST >> 30));
    }
    let mut file = std::fs::File::open(path).map_err(|why| format!("cannot be opened: {why}"))?;
    match file.read(&mut [0]) {
        Ok(0) => Err("is empty".to_owned()),
        Ok(_) => Ok(()),
        Err(why) => Err(format!("cannot be read: {why}")),
    }
}

/// What of an address is known.
pub(in crate::config::check) struct Known {
    country: bool,
    asn: bool,
    /// `geo` as a whole could be read, or is not there.
    given: bool,
}

impl Known {
    pub fn of(root: &raw::Root) -> Self {
        let geo = root.geo.as_ref();
        Known {
            country: geo.is_some_and(|geo| geo.country.is_some()),
            asn: geo.is_some_and(|geo| geo.asn.is_some()),
            given: geo.is_some(),
        }
    }

    /// Complains of a rule by countries where none is known.
    pub fn need_country(&self, what: &str, place: &Place, report: &mut Report) {
        self.need(self.country, what, "geo.country", place, report);
    }

    /// The same of autonomous systems.
    pub fn need_asn(&self, what: &str, place: &Place, report: &mut Report) {
        self.need(self.asn, what, "geo.asn", place, report);
    }

    fn need(&self, known: bool, what: &str, database: &str, place: &Place, report: &mut Report) {
        // A database that is given and wrong has been reported.
        let reported = report.is_wrong(if self.given { database } else { "geo" });
        if !known && !reported {
            report.error(place, format!("`{what}` needs a database: `{database}`"));
        }
    }
}
