//! The files of certificates and keys that the configuration names.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::SignatureAlgorithm;

use super::resolve;
use crate::config::certificate::{Facts, day};
use crate::config::decode::Placed;
use crate::config::model::{Pem, PrivatePem};
use crate::config::pem::{self, Key, Mismatch};
use crate::config::report::{Place, Report};
use crate::config::words::FilePath;

/// A certificate that holds no longer than this should have been renewed; one that is made for less than three months, when
/// it has a third of its time left.
const SOON: i64 = 30 * 86_400;

/// A certificate chain and its key, which belong together.
pub(super) struct Pair {
    pub chain: Pem,
    pub key: PrivatePem,
    pub algorithm: SignatureAlgorithm,
    /// What the first certificate says.
    pub facts: Facts,
}

/// The authorities of a file, each of which can be trusted.
pub(super) fn authorities(raw: &Placed<FilePath>, base: &Path, report: &mut Report) -> Option<Pem> {
    pem::authorities(&resolve(base, &raw.0)).map_err(|why| report.error(&raw.place, why)).ok()
}

/// A certificate and its private key. One that does not hold now, or not for long, is warned of.
pub(super) fn pair(
    certificate: &Placed<FilePath>,
    key: &Placed<FilePath>,
    base: &Path,
    report: &mut Report,
) -> Option<Pair> {
    // Both files are looked at: one mistake must not hide another.
    let chain = pem::chain(&resolve(base, &certificate.0));
    let chain = chain.map_err(|why| report.error(&certificate.place, why)).ok();
    let key_place = &key.place;
    let key = Key::read(&resolve(base, &key.0)).map_err(|why| report.error(key_place, why)).ok();
    let (chain, key) = (chain?, key?);
    match key.belongs_to(&chain) {
        Ok(()) => {}
        Err(Mismatch::Key(why)) => {
            report.error(key_place, why);
            return None;
        }
        Err(Mismatch::Certificate(why)) => {
            report.error(&certificate.place, why);
            return None;
        }
    }
    let Some(facts) = chain.certificates.first().and_then(|der| Facts::of(der)) else {
        report.error(&certificate.place, format!("{}: the first certificate cannot be read", chain.path.display()));
        return None;
    };
    warn_of_dates(&certificate.place, &chain.path, &facts, now(), report);
    Some(Pair { chain, algorithm: key.algorithm(), key: key.file, facts })
}

/// Nothing is refused for its date: an edge that starts again must not stay down for a certificate that has expired, which
/// clients who care refuse anyway.
fn warn_of_dates(place: &Place, path: &Path, facts: &Facts, now: i64, report: &mut Report) {
    let shown = path.display();
    if facts.not_after < now {
        report.warn(place, format!("{shown}: the certificate expired on {}", day(facts.not_after)));
    } else if facts.not_before > now {
        report.warn(place, format!("{shown}: the certificate is not valid before {}", day(facts.not_before)));
    } else if facts.not_after.saturating_sub(now) < SOON.min(facts.not_after.saturating_sub(facts.not_before) / 3) {
        report.warn(place, format!("{shown}: the certificate expires soon, on {}", day(facts.not_after)));
    }
}

/// Seconds since the epoch. A clock that stands before it is wrong about every certificate, and warned of by each.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_by_its_dates() {
        const DAY: i64 = 86_400;
        let facts = Facts { names: Vec::new(), not_before: 100 * DAY, not_after: 200 * DAY };
        let said = |now| {
            let mut report = Report::default();
            warn_of_dates(&Place::default(), Path::new("/c.pem"), &facts, now, &mut report);
            assert!(report.errors.is_empty() && report.warnings.len() <= 1);
            report.warnings.pop().map(|warning| warning.message).unwrap_or_default()
        };
        assert_eq!(said(100 * DAY - 1), "/c.pem: the certificate is not valid before 1970-04-11");
        assert_eq!((said(100 * DAY), said(170 * DAY)), (String::new(), String::new()));
        assert_eq!(said(170 * DAY + 1), "/c.pem: the certificate expires soon, on 1970-07-20");
        assert_eq!(said(200 * DAY), "/c.pem: the certificate expires soon, on 1970-07-20");
        assert_eq!(said(200 * DAY + 1), "/c.pem: the certificate expired on 1970-07-20");
        // One of six days is not always about to expire.
        let facts = Facts { not_after: 106 * DAY, ..facts };
        let warned = |now| {
            let mut report = Report::default();
            warn_of_dates(&Place::default(), Path::new("/c.pem"), &facts, now, &mut report);
            !report.warnings.is_empty()
        };
        assert!(!warned(104 * DAY) && warned(104 * DAY + 1));
    }
}
