//! The method PURGE: who may use it.

use std::path::Path;

use super::secret;
use crate::config::Env;
use crate::config::decode::Placed;
use crate::config::model::PurgeMethod;
use crate::config::raw;
use crate::config::report::Report;

/// Checks a site's rules. `base` and `env` are for reading the token.
pub(super) fn method(
    raw: &Placed<raw::PurgeMethod>,
    base: &Path,
    env: Env<'_>,
    report: &mut Report,
) -> Option<PurgeMethod> {
    let token = raw.token.as_ref().map(|token| secret::read(token, base, env, report));
    // What is given and wrong has been reported; it is not missing.
    if raw.from.is_none() && raw.token.is_none() && !report.is_wrong(&raw.place.path) {
        let message = "anybody could purge: `from` (the networks of those who may), `token` or both are needed";
        report.error(&raw.place, message);
    }
    if report.is_wrong(&raw.place.path) {
        return None;
    }
    Some(PurgeMethod {
        from: raw.from.as_ref().map(|list| list.0.iter().map(|net| net.value.0).collect()),
        token: token.flatten(),
        soft: raw.soft.as_ref()?.value,
    })
}
