//! Reading what a reference points to. The secret itself appears in no message.

use std::io::Read;
use std::path::Path;

use super::resolve;
use crate::config::Env;
use crate::config::decode::Placed;
use crate::config::model::Secret;
use crate::config::report::Report;
use crate::config::words::SecretRef;

/// A file larger than this holds no secret, but something else.
const LONGEST: u64 = 64 << 10;

/// Reads a secret; one line break at its end does not belong to it.
pub(super) fn read(raw: &Placed<SecretRef>, base: &Path, env: Env<'_>, report: &mut Report) -> Option<Secret> {
    let result = match &raw.value {
        SecretRef::Env(name) => from_env(name, env),
        SecretRef::File(path) => from_file(&resolve(base, path)),
    };
    result.map_err(|why| report.error(&raw.place, why)).ok()
}

fn from_env(name: &str, env: Env<'_>) -> Result<Secret, String> {
    let value = env(name).ok_or_else(|| format!("the environment variable {name} is not set"))?;
    if value.is_empty() {
        return Err(format!("the environment variable {name} is empty"));
    }
    Ok(Secret(value.into_encoded_bytes(), format!("env:{name}")))
}

fn from_file(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let file = std::fs::File::open(path).map_err(|why| format!("{shown} cannot be opened: {why}"))?;
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|why| format!("{shown} cannot be read: {why}"))?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("{shown} is too long for a secret"));
    }
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(format!("{shown} is empty"));
    }
    Ok(Secret(bytes, format!("file:{shown}")))
}
