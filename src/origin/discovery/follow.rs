//! Names of servers: resolved without blocking a worker, and again as their TTL ends.

use std::time::Duration;

use tokio::time::sleep;

use super::resolver::Resolver;
use super::{Answer, Resolved, dns, srv};
use crate::config::model::ServerAddress;
use crate::origin::member::SlotState;

/// The first retry after a failure; each further one waits twice as long.
const MIN_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Resolves the name that a server has until the task is dropped, and hands over each outcome: `None` for a failure,
/// after which the last good answer (`before`, and then what was handed over) stays in force. A failure is logged once,
/// and so is the recovery. Returns at once for a server without a name.
pub(in crate::origin) async fn follow(
    origin: &str,
    slot: &SlotState,
    address: &ServerAddress,
    before: Option<Answer>,
    mut outcome: impl FnMut(Option<&Answer>),
) {
    let mut newest = before;
    let mut record = Record::default();
    loop {
        let resolved = match address {
            ServerAddress::Name { host, .. } => name(host).await,
            ServerAddress::Srv(service) => services(service, newest.as_ref()).await,
            ServerAddress::Socket(_) | ServerAddress::Unix(_) => return,
        };
        let (news, pause) = record.take(resolved);
        match news {
            News::None => {}
            News::Failing(reason) => log::warn!(
                "origin {origin}: {} cannot be resolved{}: {reason}",
                slot.text,
                if newest.is_some() { ", its servers stay as they are" } else { "" }
            ),
            News::Recovered => log::info!("origin {origin}: {} resolves again", slot.text),
        }
        slot.unresolved.set(record.problem());
        if let Some(answer) = record.answer.take() {
            outcome(Some(&answer));
            newest = Some(answer);
        } else {
            outcome(None);
        }
        sleep(pause).await;
    }
}

async fn name(host: &str) -> Result<Resolved, String> {
    dns::lookup(host, &Resolver::system().await?).await
}

async fn services(service: &str, before: Option<&Answer>) -> Result<Resolved, String> {
    let known = match before {
        Some(Answer::Targets(targets)) => targets.as_slice(),
        _ => &[],
    };
    srv::lookup(service, known, &Resolver::system().await?).await
}

/// What has become of a name so far.
#[derive(Debug, Default)]
struct Record {
    /// Rounds in a row in which something failed.
    failures: u32,
    trouble: Option<String>,
    /// Of the newest round, until it is taken.
    answer: Option<Answer>,
}

/// What the operator is told.
#[derive(Debug, PartialEq, Eq)]
enum News {
    None,
    Failing(String),
    Recovered,
}

impl Record {
    /// Takes a round's outcome; also how long to wait before the next.
    fn take(&mut self, resolved: Result<Resolved, String>) -> (News, Duration) {
        let (answer, trouble, ttl) = match resolved {
            Ok(Resolved { answer, ttl, trouble }) => (Some(answer), trouble, ttl),
            Err(reason) => (None, Some(reason), Duration::MAX),
        };
        self.answer = answer;
        let before = self.failures;
        self.failures = if trouble.is_some() { before.saturating_add(1) } else { 0 };
        let pause = if trouble.is_some() { ttl.min(retry_after(self.failures)) } else { ttl };
        let news = match &trouble {
            Some(reason) if before == 0 => News::Failing(reason.clone()),
            None if before > 0 => News::Recovered,
            _ => News::None,
        };
        self.trouble = trouble;
        (news, pause)
    }

    /// Why there are no servers, or not all.
    fn problem(&self) -> Option<String> {
        match (&self.trouble, &self.answer) {
            (Some(reason), _) => Some(format!("cannot be resolved: {reason}")),
            (None, Some(Answer::Targets(targets))) if targets.is_empty() => Some("it names no servers".to_owned()),
            (None, _) => None,
        }
    }
}

fn retry_after(failures: u32) -> Duration {
    MIN_RETRY.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(MAX_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(ttl: u64, trouble: Option<&str>) -> Result<Resolved, String> {
        let (answer, ttl) = (Answer::Targets(Vec::new()), Duration::from_secs(ttl));
        Ok(Resolved { answer, ttl, trouble: trouble.map(str::to_owned) })
    }

    #[test]
    fn retries_become_rarer() {
        let seconds: Vec<u64> = (1..8).map(|failures| retry_after(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(retry_after(u32::MAX), MAX_RETRY);
    }

    #[test]
    fn a_failure_is_told_once_and_the_recovery_too() {
        let mut record = Record::default();
        let mut take = |resolved| {
            let (news, pause) = record.take(resolved);
            (news, pause.as_secs(), record.answer.take().is_some())
        };
        assert_eq!(take(good(60, None)), (News::None, 60, true));
        assert_eq!(take(Err("gone".to_owned())), (News::Failing("gone".to_owned()), 1, false));
        assert_eq!(take(Err("gone".to_owned())), (News::None, 2, false));
        // A part of it: the answer counts, but it is asked again soon.
        assert_eq!(take(good(60, Some("a: gone"))), (News::None, 4, true));
        assert_eq!(take(good(2, Some("a: gone"))), (News::None, 2, true));
        assert_eq!(take(good(60, None)), (News::Recovered, 60, true));
        assert_eq!(take(good(60, Some("a: gone"))), (News::Failing("a: gone".to_owned()), 1, true));
    }
}
