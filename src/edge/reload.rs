//! Putting a changed file in force: checked in full, then swapped; a bad file changes nothing.

use std::sync::PoisonError;

use log::{error, info, warn};

use super::notify;
use super::state::Shared;
use crate::admin::ReloadReport;
use crate::config;

/// Reads the configuration file again. Blocks on the file: not for a worker.
///
/// # Errors
/// Everything that is wrong with the file, in the words of `foreland check`; the old configuration stays in force.
pub fn reload(shared: &Shared) -> Result<ReloadReport, String> {
    let Some(file) = &shared.file else {
        return Err("this process has no configuration file".to_owned());
    };
    let _one_at_a_time = shared.reloading.lock().unwrap_or_else(PoisonError::into_inner);
    notify::reloading();
    let result = config::load(file).map_err(|errors| errors.to_string()).and_then(|config| {
        let warnings = config.warnings.clone();
        let report = ReloadReport {
            hash: config.hash.clone(),
            needs_restart: config::needs_restart(&shared.started_with, &config),
        };
        shared.replace(config)?;
        warnings.iter().for_each(|warning| warn!("{warning}"));
        Ok(report)
    });
    match &result {
        Ok(report) if report.needs_restart.is_empty() => {
            info!("reloaded {}, configuration {}", file.display(), report.hash);
        }
        Ok(report) => {
            let keys = report.needs_restart.join(", ");
            warn!("reloaded {}; only a restart puts in force: {keys}", file.display());
        }
        Err(errors) => {
            error!("the configuration stays as it was, since {} cannot be put in force:\n{errors}", file.display());
        }
    }
    shared.metrics.reloaded(result.is_ok());
    notify::ready();
    result
}
