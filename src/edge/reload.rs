//! Putting a changed file in force: checked in full, then swapped; a bad file changes nothing.

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
    notify::reloading();
    let result = match config::load(file) {
        Ok(config) => {
            config.warnings.iter().for_each(|warning| warn!("{warning}"));
            let needs_restart = config::needs_restart(&shared.snapshot().config, &config);
            let hash = config.hash.clone();
            if needs_restart.is_empty() {
                info!("reloaded {}, configuration {hash}", file.display());
            } else {
                warn!("reloaded {}; only a restart puts in force: {}", file.display(), needs_restart.join(", "));
            }
            shared.replace(config);
            Ok(ReloadReport { hash, needs_restart })
        }
        Err(errors) => {
            error!("the configuration stays as it was, since {} is not valid:\n{errors}", file.display());
            Err(errors.to_string())
        }
    };
    shared.metrics.reloaded(result.is_ok());
    notify::ready();
    result
}
