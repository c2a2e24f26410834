//! Who of a pool's servers takes the next request.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::candidates::{candidates, is_in_rotation, panicking_tier, takes_requests};
use super::waiting::Waiting;
use super::{Inner, NoServer, Pool, View};
use crate::config::model::Balance;
use crate::origin::balance::{Candidate, Dice, Reach, clock, draw, latency, least_requests};
use crate::origin::endpoint::Endpoint;
use crate::origin::member::Member;

/// How often a choice goes by a bound that other requests have used up meanwhile, before it goes without.
const BOUNDED_TRIES: usize = 8;

/// What a choice depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Servers that this request has tried: they are not chosen again.
    pub tried: &'a [Endpoint],
    /// Of what the origin's `balance` says (an address, a path, a field): `None` where the request has none.
    pub hash: Option<u64>,
    /// The server that a client's cookie names ([`Chosen::id`]).
    pub stays_with: Option<u64>,
}

/// A request's server. Counts as an active request of it until dropped.
#[derive(Debug)]
pub struct Chosen {
    pub(in crate::origin) member: Arc<Member>,
    waiting: Arc<Waiting>,
}

impl Pool {
    /// The server for a request, at once ([`Pool::choose`] waits for one). A server never has more requests than
    /// `limits.requests`.
    ///
    /// # Errors
    /// No server can take it.
    pub fn select(&self, ask: &Ask<'_>) -> Result<Chosen, NoServer> {
        self.inner.select(ask)
    }

    /// Whether too few servers are healthy, so that all are used (`panic_below`).
    pub fn is_panicking(&self) -> bool {
        self.inner.is_panicking()
    }
}

impl Inner {
    pub(super) fn select(&self, ask: &Ask<'_>) -> Result<Chosen, NoServer> {
        Dice::with(|dice| self.select_by(ask, clock::now(), dice))
    }

    /// The same with time (in milliseconds) and chance as they are given.
    pub(super) fn select_by(&self, ask: &Ask<'_>, now: u64, dice: &mut Dice) -> Result<Chosen, NoServer> {
        // Read before the servers, which are then at least as new.
        let changes = self.changes.load(Ordering::Acquire);
        let view = self.view.load();
        if let Some(id) = ask.stays_with
            && let Some(chosen) = self.stay(&view, id, ask)
        {
            return Ok(chosen);
        }
        let limit = self.origin.limits.requests;
        let mut tries = 0;
        // Each further round is one that another request has won.
        loop {
            let candidates = candidates(&view.members, &self.origin, ask, now)?;
            let bound = match self.origin.balance {
                Balance::ConsistentHash { bound, .. } if tries < BOUNDED_TRIES => bound,
                _ => None,
            };
            let reach = Reach::new(&candidates, bound);
            let picked = self.pick(&view, &candidates, &reach, ask, changes, now, dice);
            let Some(candidate) = picked.and_then(|index| candidates.get(index)) else { return Err(NoServer::Full) };
            let Some(member) = view.members.get(candidate.position) else { return Err(NoServer::Full) };
            let cap = ask.hash.and_then(|_| reach.cap(candidate));
            let most = match (limit, cap) {
                (Some(limit), Some(cap)) => Some(limit.min(cap)),
                (limit, cap) => limit.or(cap),
            };
            if member.state.load.take(most) {
                if let Balance::LeastLatency = self.origin.balance {
                    member.state.load.latency.tried(now);
                }
                return Ok(self.chosen(member));
            }
            tries += 1;
        }
    }

    /// The server that a client stays with, if it can take the request. In a panic that is a matter of its health as
    /// little as for anybody else: clients must not lose their sessions because of checks that are wrong.
    fn stay(&self, view: &View, id: u64, ask: &Ask<'_>) -> Option<Chosen> {
        let is_it = |member: &&Arc<Member>| member.id == id && !ask.tried.contains(member.endpoint());
        let panicked = |member: &Member| {
            is_in_rotation(member) && panicking_tier(&view.members, self.origin.panic_below) == Some(member.found.tier)
        };
        let can = |member: &&Arc<Member>| is_it(member) && (takes_requests(member) || panicked(member));
        let member = view.members.iter().find(can)?;
        member.state.load.take(self.origin.limits.requests).then(|| self.chosen(member))
    }

    /// One of the candidates, by its index.
    #[expect(clippy::too_many_arguments, reason = "what an algorithm may depend on; each uses a part of it")]
    fn pick(
        &self,
        view: &View,
        candidates: &[Candidate],
        reach: &Reach<'_>,
        ask: &Ask<'_>,
        changes: u64,
        now: u64,
        dice: &mut Dice,
    ) -> Option<usize> {
        let ties = || self.ties.fetch_add(1, Ordering::Relaxed);
        match (&self.origin.balance, &view.ring, ask.hash) {
            (Balance::Random, ..) => draw(candidates, &[], dice),
            (Balance::LeastRequests { choices: None }, ..) => least_requests::of_all(candidates, ties()),
            (Balance::LeastRequests { choices: Some(choices) }, ..) => {
                least_requests::of_some(candidates, *choices, dice)
            }
            (Balance::LeastLatency, ..) => {
                let reading = |candidate: &Candidate| match view.members.get(candidate.position) {
                    Some(member) => member.state.load.latency.read(now),
                    None => latency::Reading::Unknown { wanted: false },
                };
                latency::least(candidates, reading, ties())
            }
            (Balance::Failover, ..) => (!candidates.is_empty()).then_some(0),
            (Balance::IpHash | Balance::ConsistentHash { .. }, Some(ring), Some(hash)) => ring.choose(hash, reach),
            // Where there is nothing to hash, it goes in turn.
            (Balance::RoundRobin | Balance::IpHash | Balance::ConsistentHash { .. }, ..) => {
                let mut turn = self.turn();
                if turn.seen < changes {
                    turn.seen = changes;
                    turn.rotation.restart();
                }
                turn.rotation.next(view.members.len(), candidates)
            }
        }
    }

    fn chosen(&self, member: &Arc<Member>) -> Chosen {
        Chosen { member: member.clone(), waiting: self.waiting.clone() }
    }
}

impl Chosen {
    /// Where to connect to.
    pub fn endpoint(&self) -> &Endpoint {
        self.member.endpoint()
    }

    /// As configured, or as it was found.
    pub fn server(&self) -> &str {
        &self.member.found.text
    }

    /// Names the server for [`Ask::stays_with`]: the same in every process, for as long as its address does not change.
    pub fn id(&self) -> u64 {
        self.member.id
    }

    /// It has answered: so long after the request was sent.
    pub fn answered(&self, latency: Duration) {
        self.member.state.load.latency.observe(latency, clock::now());
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.member.state.load.release();
        self.waiting.freed();
    }
}
