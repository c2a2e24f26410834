//! Who of a pool's servers can take a request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::choose::Ask;
use super::{Inner, NoServer};
use crate::config::model::Origin;
use crate::origin::balance::{Candidate, clock, slow_start};
use crate::origin::member::Member;

/// Most pools fit on the stack.
pub(super) type Candidates = SmallVec<[Candidate; 16]>;

/// The servers that can take a request, all of one tier: the lowest that has any. A server that has been tried or that
/// has as many requests as it may cannot.
///
/// # Errors
/// There are none.
pub(super) fn candidates(
    members: &[Arc<Member>],
    origin: &Origin,
    ask: &Ask<'_>,
    now: u64,
) -> Result<Candidates, NoServer> {
    let (mut found, mut census) = gather(members, origin, ask, now, None);
    if census.unhealthy > 0
        && let Some(tier) = panicking_tier(members, origin.panic_below)
    {
        (found, census) = gather(members, origin, ask, now, Some(tier));
    }
    if found.is_empty() { Err(census.reason()) } else { Ok(found) }
}

/// The tier whose servers are all used, because too few of them are healthy and no other tier has a healthy one.
pub(super) fn panicking_tier(members: &[Arc<Member>], panic_below: u8) -> Option<u8> {
    let in_rotation = || members.iter().filter(|member| is_in_rotation(member));
    let tier = in_rotation().map(|member| member.found.tier).min()?;
    let (mut all, mut usable) = (0usize, 0usize);
    for member in in_rotation() {
        let is_usable = member.is_usable();
        if member.found.tier == tier {
            all += 1;
            usable += usize::from(is_usable);
        } else if is_usable {
            return None;
        }
    }
    (usable * 100 < usize::from(panic_below) * all).then_some(tier)
}

/// Whether a server takes part at all, whoever asks.
pub(super) fn takes_requests(member: &Member) -> bool {
    is_in_rotation(member) && member.is_usable()
}

/// The same, but for its health.
pub(super) fn is_in_rotation(member: &Member) -> bool {
    member.found.weight > 0 && !member.is_drained()
}

/// Why servers are none of the candidates.
#[derive(Debug, Default)]
struct Census {
    weightless: usize,
    drained: usize,
    unhealthy: usize,
    tried: usize,
    full: usize,
}

impl Census {
    fn reason(&self) -> NoServer {
        let Census { weightless, drained, unhealthy, tried, full } = *self;
        match (full, tried, weightless + drained + unhealthy) {
            (0, 0, 0) => NoServer::Unresolved,
            (0, 0, _) => NoServer::Unusable { unhealthy, drained, weightless },
            (0, _, _) => NoServer::Tried,
            _ => NoServer::Full,
        }
    }
}

/// `panicking`: the tier in which health is of no matter.
fn gather(
    members: &[Arc<Member>],
    origin: &Origin,
    ask: &Ask<'_>,
    now: u64,
    panicking: Option<u8>,
) -> (Candidates, Census) {
    let (mut found, mut census, mut lowest) = (Candidates::new(), Census::default(), u8::MAX);
    let slow = clock::millis(origin.slow_start);
    for (position, member) in members.iter().enumerate() {
        let tier = member.found.tier;
        let out = if member.found.weight == 0 {
            &mut census.weightless
        } else if member.is_drained() {
            &mut census.drained
        } else if panicking != Some(tier) && !member.is_usable() {
            &mut census.unhealthy
        } else if ask.tried.contains(member.endpoint()) {
            &mut census.tried
        } else {
            let load = &member.state.load;
            let active = load.active();
            if origin.limits.requests.is_none_or(|limit| active < limit) {
                if tier < lowest || found.is_empty() {
                    lowest = tier;
                    found.clear();
                }
                if tier == lowest {
                    let share = if slow == 0 { slow_start::WHOLE } else { slow_start::share(load.since(), now, slow) };
                    found.push(Candidate::new(position, member.found.weight, share, active));
                }
                continue;
            }
            &mut census.full
        };
        *out += 1;
    }
    (found, census)
}

impl Inner {
    pub(super) fn is_panicking(&self) -> bool {
        self.origin.panic_below > 0 && panicking_tier(&self.view.load().members, self.origin.panic_below).is_some()
    }

    /// Logs the beginning and the end of a panic.
    pub(super) fn tell_panic(&self) {
        let panicking = self.is_panicking();
        if self.panicking.swap(panicking, Ordering::Relaxed) == panicking {
            return;
        }
        let (name, below) = (&self.name, self.origin.panic_below);
        match panicking {
            true => log::warn!("origin {name}: fewer than {below}% of the servers are healthy: all of them are used"),
            false => log::info!("origin {name}: at least {below}% of the servers are healthy: only those are used"),
        }
    }
}
