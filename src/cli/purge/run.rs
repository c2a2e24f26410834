//! A call after the other, until all is purged or one of them fails.

use std::io::{self, Read};
use std::process::ExitCode;

use bytes::Bytes;
use tokio::runtime::Runtime;

use super::answer;
use super::batch::{Batch, Place};
use super::client::{Client, Failure, Fate};
use super::report::{self, Report, Stop};
use super::selectors::Selectors;

/// Purges the selectors and says what came of it.
pub fn run<R: Read>(mut client: Client, mut selectors: Selectors<R>, mut report: Report) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report::refuse(&format!("the runtime cannot start: {error}")),
    };
    let ended = calls(&runtime, &mut client, &mut selectors, &mut report);
    // A look-up of a name that hangs must not keep the process.
    runtime.shutdown_background();
    match ended.and_then(|()| report.success().map_err(|error| unprinted(&error, &selectors))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => report.failure(&stop),
    }
}

fn calls<R: Read>(
    runtime: &Runtime,
    client: &mut Client,
    selectors: &mut Selectors<R>,
    report: &mut Report,
) -> Result<(), Stop> {
    // Reading blocks, and so does not happen within the runtime.
    while let Some(batch) = selectors.next().map_err(|unread| Stop {
        why: format!("line {} of standard input: {}", unread.why.line, unread.why.why),
        count: 0,
        fate: Fate::Nothing,
        go_on: Some(unread.first),
        is_last: false,
    })? {
        report.calling(selectors.bytes());
        let done = runtime.block_on(call(client, &batch)).map_err(|Failure { why, fate }| Stop {
            why,
            count: batch.count() as u64,
            fate,
            go_on: batch.first().cloned(),
            is_last: selectors.rest().is_none(),
        })?;
        report.done(&batch, &done, selectors.bytes()).map_err(|error| unprinted(&error, selectors))?;
    }
    Ok(())
}

async fn call(client: &mut Client, batch: &Batch) -> Result<answer::Done, Failure> {
    let answer = client.purge(&Bytes::from(batch.body()), answer::is_unavailable).await?;
    answer::judge(&answer, batch, client)
}

/// What was to be printed is known to nobody: to go on in silence could be to go on unwatched.
fn unprinted<R: Read>(error: &io::Error, selectors: &Selectors<R>) -> Stop {
    let go_on: Option<Place> = selectors.rest();
    let is_last = go_on.is_none();
    Stop { why: format!("standard output cannot be written: {error}"), count: 0, fate: Fate::Nothing, go_on, is_last }
}
