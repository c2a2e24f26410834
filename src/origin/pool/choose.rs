//! Who of a pool's servers takes the next request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Pool, Turn};
use crate::config::model::Balance;
use crate::origin::endpoint::Endpoint;
use crate::origin::member::Member;

/// What a choice depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Servers that this request has tried: they are not chosen again.
    pub tried: &'a [Endpoint],
    /// Of what the origin's `balance` says (an address, a path, a field): `None` where the request has none.
    pub hash: Option<u64>,
    /// The server that a client's cookie names.
    pub stays_with: Option<u64>,
}

/// A request's server. Counts as an active request of it until dropped.
#[derive(Debug)]
pub struct Chosen {
    pub(in crate::origin) member: Arc<Member>,
}

impl Pool {
    /// The server for a request. `None`: every other server is unhealthy, drained, of weight 0 or not resolved.
    pub fn select(&self, ask: &Ask<'_>) -> Option<Chosen> {
        let inner = &self.inner;
        let changes = inner.changes.load(Ordering::Acquire);
        let mut turn = inner.turn();
        let Turn { members, rotation, seen } = &mut *turn;
        if *seen != changes {
            *seen = changes;
            rotation.restart();
        }
        let weight = |position: usize| {
            let member: &Member = &members[position];
            let usable = member.is_usable() && !member.is_drained() && !ask.tried.contains(member.endpoint());
            if usable { member.found.weight } else { 0 }
        };
        let position = match inner.origin.balance {
            Balance::RoundRobin => rotation.next(members.len(), weight)?,
            _ => rotation.next(members.len(), weight)?,
        };
        let member = members[position].clone();
        member.state.load.active.fetch_add(1, Ordering::Relaxed);
        Some(Chosen { member })
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
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.member.state.load.active.fetch_sub(1, Ordering::Relaxed);
    }
}
