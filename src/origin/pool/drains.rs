//! Which servers the operator has taken out of the rotation.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use crate::origin::member::{Member, Slot};

/// Of servers that are not there, the newest so many drains are remembered.
const REMEMBERED: usize = 1000;

/// The drained servers, by what they are called: a slot's text, a found server's, or an endpoint's. So a server that
/// leaves and returns is drained still. Slots and states only mirror it, for the way of a request.
#[derive(Debug, Default)]
pub(super) struct Drains(Mutex<Texts>);

#[derive(Debug, Default)]
struct Texts {
    /// With the order in which they came.
    drained: HashMap<String, u64>,
    count: u64,
}

/// Whether that is what a server is called.
pub(super) fn is_called(member: &Member, text: &str) -> bool {
    member.slot.text == text || member.found.text == text || member.endpoint().to_string() == text
}

impl Drains {
    /// Drains what is called `server`, or undrains it. Back in by a name means back in with all that it leads to.
    /// Whether there is such a server, or has been when it was drained.
    pub(super) fn set<'a>(
        &self,
        server: &str,
        drained: bool,
        slots: impl Iterator<Item = &'a Slot> + Clone,
        members: &[Arc<Member>],
    ) -> bool {
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = slots.clone().any(|slot| slot.shared.text == server)
            || members.iter().any(|member| is_called(member, server));
        if drained && is_there {
            texts.insert(server, slots.clone(), members);
        } else if !drained {
            let remembered = texts.drained.remove(server).is_some();
            if !is_there && !remembered {
                return false;
            }
            for member in members.iter().filter(|member| member.slot.text == server || member.found.text == server) {
                texts.drained.remove(&member.found.text);
                texts.drained.remove(&member.endpoint().to_string());
            }
        } else {
            return false;
        }
        texts.mark(slots, members);
        true
    }

    /// Makes slots and members show what is drained: for when they are new.
    pub(super) fn mark<'a>(&self, slots: impl Iterator<Item = &'a Slot>, members: &[Arc<Member>]) {
        let texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever shows otherwise has been marked as the last one was undrained.
        if !texts.drained.is_empty() {
            texts.mark(slots, members);
        }
    }
}

impl Texts {
    fn insert<'a>(&mut self, text: &str, slots: impl Iterator<Item = &'a Slot>, members: &[Arc<Member>]) {
        self.count += 1;
        self.drained.insert(text.to_owned(), self.count);
        if self.drained.len() <= REMEMBERED {
            return;
        }
        // Servers that are there are bounded by themselves, and theirs are never forgotten.
        let mut there: std::collections::HashSet<String> = slots.map(|slot| slot.shared.text.clone()).collect();
        for member in members {
            there.insert(member.found.text.clone());
            there.insert(member.endpoint().to_string());
        }
        let mut absent: Vec<(u64, String)> = self
            .drained
            .iter()
            .filter(|(text, _)| !there.contains(*text))
            .map(|(text, order)| (*order, text.clone()))
            .collect();
        absent.sort_unstable();
        for (_, text) in absent.iter().take(absent.len().saturating_sub(REMEMBERED)) {
            self.drained.remove(text);
        }
    }

    fn mark<'a>(&self, slots: impl Iterator<Item = &'a Slot>, members: &[Arc<Member>]) {
        let before: Vec<bool> = members.iter().map(|member| member.is_drained()).collect();
        for slot in slots {
            slot.shared.drained.store(self.drained.contains_key(&slot.shared.text), Ordering::Relaxed);
        }
        for (member, before) in members.iter().zip(before) {
            let drained = self.drained.contains_key(&member.found.text)
                || self.drained.contains_key(&member.endpoint().to_string());
            member.state.health.drained.store(drained, Ordering::Relaxed);
            if member.is_drained() != before {
                member.state.health.drain_changed();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u16) -> Arc<Member> {
        Member::checked_at(std::net::SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 80)))
    }

    fn set(drains: &Drains, server: &str, drained: bool, members: &[Arc<Member>]) -> bool {
        drains.set(server, drained, std::iter::empty(), members)
    }

    #[test]
    fn who_leaves_and_returns_is_drained_still() {
        let (drains, there) = (Drains::default(), member(1));
        assert!(set(&drains, "10.0.0.1:80", true, std::slice::from_ref(&there)));
        assert!(there.is_drained());
        assert!(!set(&drains, "10.0.0.2:80", true, &[]));
        let back = member(1);
        drains.mark(std::iter::empty(), std::slice::from_ref(&back));
        assert!(back.is_drained());
        // In its absence, too.
        assert!(set(&drains, "10.0.0.1:80", false, &[]));
        assert!(!set(&drains, "10.0.0.1:80", false, &[]));
        drains.mark(std::iter::empty(), &[member(1)]);
        assert!(!member(1).is_drained());
    }

    #[test]
    fn memory_of_the_absent_is_bounded() {
        let drains = Drains::default();
        let stays = member(0);
        assert!(set(&drains, "10.0.0.0:80", true, std::slice::from_ref(&stays)));
        for number in 1..=REMEMBERED as u16 + 10 {
            let passing = member(number);
            let text = passing.endpoint().to_string();
            assert!(set(&drains, &text, true, &[stays.clone(), passing]));
        }
        // The newest is there as it is drained: one more than what is remembered of the absent, and one that stays.
        assert_eq!(drains.0.lock().unwrap().drained.len(), REMEMBERED + 2);
        let is_drained = |member: Arc<Member>| {
            drains.mark(std::iter::empty(), std::slice::from_ref(&member));
            member.is_drained()
        };
        assert!(is_drained(stays.clone()) && is_drained(member(REMEMBERED as u16 + 10)) && !is_drained(member(1)));
    }
}
