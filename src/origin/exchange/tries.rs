//! Which server is asked, how long it has, and whether another one is asked after it.

use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{Either, select};
use smallvec::SmallVec;
use tokio::time::{self, sleep, timeout, timeout_at};

use super::Exchange;
use super::live::{Limits, Live};
use super::trail::{Ending, Failure, Server};
use super::upload::{Pace, Upload};
use crate::config::model::{HostHeader, OriginHttp};
use crate::origin::endpoint::Endpoint;
use crate::origin::failure::FailureKind;
use crate::origin::health::{Outcome, TryResult};
use crate::origin::pool::{Ask, Chosen};
use crate::origin::wire::{How, RequestHead, ResponseHead, WireError};

/// Connections of a request that may turn out to be at their end without counting as tries. More than a few, and it is the
/// server that closes them on each request: those who wait for this one must not wait for all of them.
const MAX_STALE: usize = 4;

/// Each interim response is a sign of life, so no time limit between two reads ends a server that sends nothing else. One
/// that says every few seconds that it is still at work may do so for an hour.
const MAX_INTERIM: usize = 1000;

/// What follows is another protocol: there is no other response.
const SWITCHING_PROTOCOLS: u16 = 101;

/// The servers that have failed a request.
type Tried = SmallVec<[Endpoint; 4]>;

/// A try that has led to a head.
pub(super) struct Begun {
    pub(super) live: Live,
    pub(super) head: ResponseHead,
}

/// A try that has failed.
struct Lost {
    server: Server,
    upload: Option<Upload>,
    error: WireError,
    /// That says nothing of the server: see [`is_stale`].
    stale: bool,
}

impl Exchange {
    /// Asks a server, and others if it must be; the head of the final response.
    pub(super) async fn begin(&self, head: &RequestHead, upload: Option<Upload>) -> Result<Begun, Failure> {
        self.pool.budget().request(Instant::now());
        let all = self.pool.origin().timeout.map(|limit| Deadline { at: time::Instant::now() + limit, limit });
        let begun = self.tries(head, upload, all).await;
        begun.map_err(|failure| self.fails(failure))
    }

    async fn tries(
        &self,
        head: &RequestHead,
        mut upload: Option<Upload>,
        all: Option<Deadline>,
    ) -> Result<Begun, Failure> {
        let origin = self.pool.origin();
        let pace = upload.as_ref().map(Upload::pace);
        let mut tried = Tried::new();
        let mut chosen = self.choose(&tried, all).await?;
        loop {
            let all = all.map(|all| all.at_pace(pace.as_ref()));
            let hedged = origin.hedge.as_ref().filter(|_| self.wanted.repeatable && upload.is_none());
            let outcome = match hedged {
                Some(hedge) => Box::pin(self.hedged(chosen, head, hedge.after, &mut tried, all)).await,
                None => self.attempt(chosen, head, upload, all).await,
            };
            let lost = match outcome {
                Ok(begun) => match self.tries_elsewhere(begun, &mut tried).await {
                    Ok((other, again)) => {
                        (chosen, upload) = (other, again);
                        continue;
                    }
                    Err(begun) => return Ok(*begun),
                },
                Err(lost) => lost,
            };
            let all = all.map(|all| all.at_pace(pace.as_ref()));
            if let Some(all) = all.filter(|all| lost.error.kind == FailureKind::Timeout && all.is_over()) {
                return Err(self.too_long(all));
            }
            let failure = Failure::of(&lost.error);
            let (may, stale) = self.may_try_again(&lost);
            if !may {
                return Err(failure);
            }
            if !stale {
                tried.push(lost.server.endpoint().clone());
            }
            upload = lost.upload;
            self.trail().failure = Some(failure.clone());
            chosen = match self.choose(&tried, all).await {
                Ok(next) => next,
                Err(none) if none.ending == Ending::NoServer => {
                    let why = format!("{}, and {}", failure.why, none.why);
                    return Err(Failure { why, ..failure });
                }
                Err(other) => return Err(other),
            };
            // Asked last: where there is no other server, the budget has no part in it.
            if !stale && !self.affords() {
                return Err(failure);
            }
            if let Some(upload) = &mut upload
                && !upload.rewind()
            {
                return Err(failure);
            }
            self.witness.retried();
        }
    }

    async fn choose(&self, tried: &[Endpoint], all: Option<Deadline>) -> Result<Chosen, Failure> {
        let ask = self.ask(tried);
        let mut choice = pin!(self.pool.choose(&ask));
        let chosen = match all {
            None => choice.as_mut().await,
            Some(all) => match timeout_at(all.at, choice.as_mut()).await {
                Ok(chosen) => chosen,
                Err(_) => {
                    self.witness.failed(FailureKind::Timeout);
                    return Err(self.too_long(all));
                }
            },
        };
        chosen.map_err(|none| {
            let full = none.is_overload();
            // One that has been asked is there, and what became of that is counted.
            if full || tried.is_empty() {
                self.witness.refused(full);
            }
            let ending = if full { Ending::Full } else { Ending::NoServer };
            Failure { ending, reset: None, why: format!("{none} (origin {:?})", self.pool.origin().name) }
        })
    }

    /// The time of all tries is over.
    fn too_long(&self, all: Deadline) -> Failure {
        let after = match self.trail().failure.take() {
            Some(failure) => format!(", after {}", failure.why),
            None => String::new(),
        };
        Failure { ending: Ending::TooLong, reset: None, why: format!("no answer within {:?}{after}", all.limit) }
    }

    fn ask<'a>(&self, tried: &'a [Endpoint]) -> Ask<'a> {
        Ask { tried, hash: self.wanted.hash, stays_with: self.wanted.stays_with }
    }

    /// Whether a failed request is tried again, and whether that is for a connection that was closed while it was kept,
    /// which says nothing of the server.
    fn may_try_again(&self, lost: &Lost) -> (bool, bool) {
        let (error, retry) = (&lost.error, &self.pool.origin().retry);
        if lost.upload.as_ref().is_some_and(|upload| !upload.can_rewind()) {
            return (false, false);
        }
        if !error.untouched && (!self.wanted.repeatable || error.begun) {
            return (false, false);
        }
        let mut trail = self.trail();
        // A connection may turn out to carry fewer streams than were sent: one that has been refused is sent again, once.
        let was_refused = error.of_stream && error.untouched && trail.stale == 0 && self.pool.origin().retries > 0;
        if lost.stale || was_refused {
            trail.stale += 1;
            return (true, true);
        }
        let wanted = match error.kind {
            kind if kind.is_before_sending() => true,
            FailureKind::Reset => retry.on_reset || error.untouched,
            FailureKind::Timeout => retry.on_timeout,
            _ => false,
        };
        let left = trail.tries - trail.stale <= self.pool.origin().retries;
        drop(trail);
        (wanted && left, false)
    }

    fn affords(&self) -> bool {
        let affords = self.pool.budget().retry(Instant::now());
        if !affords {
            self.witness.unaffordable();
        }
        affords
    }

    /// Whether an answer is one to ask another server after, and there is one to ask: the server to go on with.
    ///
    /// # Errors
    /// The answer stands.
    async fn tries_elsewhere(&self, begun: Begun, tried: &mut Tried) -> Result<(Chosen, Option<Upload>), Box<Begun>> {
        let (origin, status) = (self.pool.origin(), begun.head.status);
        let wanted = origin.retry.on_statuses.iter().any(|(first, last)| (*first..=*last).contains(&status));
        let left = || {
            let trail = self.trail();
            trail.tries - trail.stale <= origin.retries
        };
        if !wanted || !self.wanted.repeatable || !begun.live.can_rewind() || !left() {
            return Err(Box::new(begun));
        }
        tried.push(begun.live.chosen.endpoint().clone());
        // Waiting for another server is worse than an answer.
        let Ok(other) = self.pool.select(&self.ask(tried)) else { return Err(Box::new(begun)) };
        if !self.affords() {
            return Err(Box::new(begun));
        }
        self.witness.failed(FailureKind::Status);
        self.trail().failure =
            Some(Failure::of(&WireError::new(FailureKind::Status, format!("the server answered {status}"))));
        let (_, mut upload) = begun.live.into_parts();
        upload.iter_mut().for_each(|upload| {
            upload.rewind();
        });
        self.witness.retried();
        Ok((other, upload))
    }

    /// Asks a second server too if the first has not answered in time; the first answer counts. What has failed by then
    /// is in `tried`.
    async fn hedged(
        &self,
        first: Chosen,
        head: &RequestHead,
        after: Duration,
        tried: &mut Tried,
        all: Option<Deadline>,
    ) -> Result<Begun, Lost> {
        let endpoint = first.endpoint().clone();
        let one = pin!(self.attempt(first, head, None, all));
        let one = match select(one, pin!(sleep(after))).await {
            Either::Left((outcome, _)) => return outcome,
            Either::Right((_, one)) => one,
        };
        let mut others = tried.clone();
        others.push(endpoint.clone());
        let second = match self.pool.select(&self.ask(&others)) {
            Ok(second) if self.affords() => second,
            _ => return one.await,
        };
        self.witness.hedged();
        let second_endpoint = second.endpoint().clone();
        let two = pin!(self.attempt(second, head, None, all));
        match select(one, two).await {
            Either::Left((Ok(begun), _)) | Either::Right((Ok(begun), _)) => Ok(begun),
            Either::Left((Err(_), two)) => {
                tried.push(endpoint);
                two.await
            }
            Either::Right((Err(_), one)) => {
                tried.push(second_endpoint);
                one.await
            }
        }
    }

    /// Asks one server.
    async fn attempt(
        &self,
        chosen: Chosen,
        head: &RequestHead,
        upload: Option<Upload>,
        all: Option<Deadline>,
    ) -> Result<Begun, Lost> {
        let began = Instant::now();
        let own = self.pool.origin().try_timeout.map(|limit| Deadline { at: time::Instant::now() + limit, limit });
        let pace = upload.as_ref().map(Upload::pace);
        let server = Server::of(&chosen);
        {
            let mut trail = self.trail();
            trail.tries += 1;
            trail.server = Some(server.clone());
            trail.began = Some(began);
        }
        let mut kept = false;
        let mut state = State { chosen: Some(chosen), upload, live: None };
        let outcome = {
            // In one place, whoever waits for it: it is large.
            let mut work = pin!(self.ask_server(&mut state, head, &mut kept));
            loop {
                let Some(due) = deadline(own, all, pace.as_ref()) else { break work.as_mut().await };
                if let Ok(outcome) = timeout_at(due.at, work.as_mut()).await {
                    break outcome;
                }
                // The client may have been waited for meanwhile.
                if let Some(over) = deadline(own, all, pace.as_ref()).filter(|deadline| deadline.is_over()) {
                    break Err(over.error());
                }
            }
        };
        let took = began.elapsed();
        match (outcome, state) {
            (Ok(head), State { live: Some(mut live), .. }) => {
                {
                    // Of two at once, it is this one that has answered.
                    let mut trail = self.trail();
                    trail.server = Some(server);
                    trail.began = Some(began);
                }
                self.final_head(&mut live, &head);
                Ok(Begun { live, head })
            }
            (outcome, state) => {
                let error = outcome.err().unwrap_or_else(|| WireError::new(FailureKind::Other, "no connection"));
                let (chosen, upload) = match state {
                    State { live: Some(live), .. } => {
                        let (chosen, upload) = live.into_parts();
                        (Some(chosen), upload)
                    }
                    State { chosen, upload, live: None } => (chosen, upload),
                };
                self.witness.failed(error.kind);
                let stale = !error.begun && is_stale(kept, &error) && self.trail().stale < MAX_STALE;
                if let Some(chosen) = &chosen
                    && !stale
                    && !self.asked_too_much(&error)
                {
                    failed(chosen, error.kind, took);
                }
                Err(Lost { server, upload, error, stale })
            }
        }
    }

    /// Whether a client wanted another protocol of a server that is said to speak HTTP/2, and may speak nothing else: that
    /// it does not understand is no fault of its own.
    fn asked_too_much(&self, error: &WireError) -> bool {
        let is_about_protocol = matches!(error.kind, FailureKind::Invalid | FailureKind::Reset | FailureKind::Tls);
        self.wanted.upgrade && is_about_protocol && self.pool.origin().http == OriginHttp::Http2
    }

    async fn ask_server(
        &self,
        state: &mut State,
        head: &RequestHead,
        kept: &mut bool,
    ) -> Result<ResponseHead, WireError> {
        let origin = self.pool.origin();
        let begun_twice = || WireError::new(FailureKind::Other, "a request was begun twice");
        let chosen = state.chosen.as_ref().ok_or_else(begun_twice)?;
        let (wire, how) = self.pool.checkout(chosen, self.wanted.proxied, self.wanted.upgrade).await?;
        match how {
            How::Kept => self.witness.reused(),
            How::Opened(took) => self.witness.opened(took),
        }
        *kept = matches!(how, How::Kept);
        let named;
        let head = match origin.host {
            HostHeader::Server => {
                named = with_host(head, chosen.server());
                &named
            }
            _ => head,
        };
        let chosen = state.chosen.take().ok_or_else(begun_twice)?;
        let limits = Limits { read: origin.read_timeout, write: origin.write_timeout, dialogue: self.wanted.dialogue };
        let live = state.live.insert(Live::new(wire, chosen, state.upload.take(), limits));
        self.leaves();
        match timeout(origin.write_timeout, live.wire().send_head(head)).await {
            Ok(sent) => sent?,
            Err(_) => {
                let why = format!("the server took nothing of the request for {:?}", origin.write_timeout);
                return Err(WireError::new(FailureKind::Timeout, why));
            }
        }
        for _ in 0..=MAX_INTERIM {
            let head = live.next_head().await?;
            if head.status >= 200 || head.status == SWITCHING_PROTOCOLS {
                return Ok(head);
            }
            // It was not closed while it was kept.
            *kept = false;
            self.pass_on(head.wire);
        }
        Err(WireError::new(FailureKind::Invalid, format!("more than {MAX_INTERIM} interim responses")))
    }
}

impl Exchange {
    /// Notes the head of a final response.
    fn final_head(&self, live: &mut Live, head: &ResponseHead) {
        let mut trail = self.trail();
        let took = trail.began.map(|began| began.elapsed()).unwrap_or_default();
        trail.time = Some(took);
        trail.suspicious = head.suspicious;
        drop(trail);
        self.witness.answered(head.status, took);
        live.answered(head.status, took);
    }

    /// Notes that an answer was not the whole.
    pub(super) fn broke_off(&self, live: &mut Live, error: &WireError) {
        self.witness.failed(error.kind);
        let took = self.trail().began.map(|began| began.elapsed()).unwrap_or_default();
        live.broke_off(error.kind, took);
    }
}

/// The one of two that passes first, at this pace of the request's body.
fn deadline(own: Option<Deadline>, all: Option<Deadline>, pace: Option<&Pace>) -> Option<Deadline> {
    own.into_iter().chain(all).map(|deadline| deadline.at_pace(pace)).min_by_key(|deadline| deadline.at)
}

/// Whether a connection has ended that had been kept, perhaps before the request came to the server; or one that the server
/// lets end in good order, as it does after so many requests. A stream that is reset on one that goes on is its doing.
fn is_stale(kept: bool, error: &WireError) -> bool {
    let is_goodbye = error.goodbye && error.untouched;
    (kept || is_goodbye) && error.kind == FailureKind::Reset && !error.of_stream
}

fn failed(chosen: &Chosen, kind: FailureKind, took: Duration) {
    chosen.report(&Outcome { result: TryResult::Failed(kind), latency: took });
}

/// When there must be an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub(super) at: time::Instant,
    /// How long that was from the beginning.
    limit: Duration,
}

impl Deadline {
    fn is_over(self) -> bool {
        self.at <= time::Instant::now()
    }

    /// The same where a server waits for the request's body: how long the client takes for that is not the server's time,
    /// which so begins, at the earliest, when the last that was waited for has come.
    fn at_pace(self, pace: Option<&Pace>) -> Deadline {
        let waited = pace.and_then(Pace::waited).map(|until| until + self.limit);
        Deadline { at: waited.map_or(self.at, |at| at.max(self.at)), ..self }
    }

    /// It has passed.
    fn error(self) -> WireError {
        WireError::new(FailureKind::Timeout, format!("no answer within the {:?} that it may take", self.limit))
    }
}

/// How far a try is. Whatever ends it, the body must be there for the next one.
struct State {
    chosen: Option<Chosen>,
    upload: Option<Upload>,
    live: Option<Live>,
}

/// The head with the server's own name as Host.
fn with_host(head: &RequestHead, host: &str) -> RequestHead {
    let mut wire = Vec::with_capacity(head.wire.len() + host.len());
    for line in head.wire.split_inclusive(|byte| *byte == b'\n') {
        match line.get(..5) {
            Some(name) if name.eq_ignore_ascii_case(b"host:") => {
                wire.extend_from_slice(b"Host: ");
                wire.extend_from_slice(host.as_bytes());
                wire.extend_from_slice(b"\r\n");
            }
            _ => wire.extend_from_slice(line),
        }
    }
    RequestHead { wire: Bytes::from(wire), ..head.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_closed_while_it_was_kept_is_no_failure_but_a_reset_stream_is() {
        let reset = |untouched, of_stream| WireError { untouched, of_stream, ..WireError::new(FailureKind::Reset, "") };
        assert!(is_stale(true, &reset(false, false)) && is_stale(true, &reset(true, false)));
        assert!(!is_stale(true, &reset(true, true)), "refused");
        assert!(!is_stale(true, &reset(false, true)), "worked on");
        assert!(!is_stale(false, &reset(false, false)), "a new connection");
        assert!(!is_stale(true, &WireError::new(FailureKind::Timeout, "")));
    }
}
