//! Where the members of a pool come from.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::model::{Origin, Server};
use crate::origin::discovery::{Answer, Found};
use crate::origin::member::Slot;

pub(super) type SharedSlot = Arc<Slot>;

/// The slots of a pool, and what their names stand for. Slots of the configuration stay for as long as the pool; those
/// of the watched file come and go.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Those of the configuration, then those of the file.
    entries: Vec<Entry>,
    /// How many are of the configuration.
    configured: usize,
    /// Of the file's content before, until the names of the new one have been resolved once: meanwhile somebody must
    /// take the requests.
    leaving: Vec<Entry>,
    /// The newest good content of the file, servers that are configured too included.
    listed: Option<Vec<Server>>,
    /// Whether the first reading of the file is still to come.
    awaits_file: bool,
    /// The next slot's index.
    next: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) slot: SharedSlot,
    /// The newest good one.
    answer: Option<Answer>,
    /// Whether the first resolution is still to come.
    awaited: bool,
}

impl Sources {
    pub(super) fn new(origin: &Origin) -> Sources {
        Sources::with(origin, &mut Known::default())
    }

    /// Those of `origin` after those of a previous configuration of it.
    pub(super) fn after(origin: &Origin, previous: &Origin, before: &Sources) -> Sources {
        let mut known = Known::of(before.entries.iter().cloned(), false);
        let mut sources = Sources::with(origin, &mut known);
        if origin.servers_file.is_some() && origin.servers_file == previous.servers_file {
            sources.awaits_file = before.awaits_file;
            if let Some(listed) = &before.listed {
                sources.put_listed(listed.clone(), &mut known);
            }
        }
        sources
    }

    fn with(origin: &Origin, known: &mut Known) -> Sources {
        let mut sources = Sources { awaits_file: origin.servers_file.is_some(), ..Sources::default() };
        for server in &origin.servers {
            let entry = sources.entry(server, known);
            sources.entries.push(entry);
        }
        sources.configured = sources.entries.len();
        sources
    }

    /// The file has been read; with `None`, there is nothing to be had of it.
    pub(super) fn listed(&mut self, servers: Option<Vec<Server>>) {
        self.awaits_file = false;
        let Some(servers) = servers else { return };
        let listed = self.entries.split_off(self.configured);
        let mut known = Known::of(listed.into_iter().chain(self.leaving.drain(..)), true);
        self.put_listed(servers, &mut known);
        if self.names_are_awaited() {
            self.leaving = known.entries.into_values().filter(|entry| !entry.found().is_empty()).collect();
            self.leaving.sort_unstable_by_key(|entry| entry.slot.index);
            self.leaving.iter_mut().for_each(|entry| entry.awaited = false);
        }
    }

    /// A slot has been resolved, or (`None`) it could not be. Its text where that is news.
    pub(super) fn resolved(&mut self, index: usize, answer: Option<&Answer>) -> Option<String> {
        let entry = self.entries.iter_mut().find(|entry| entry.slot.index == index)?;
        let first = std::mem::take(&mut entry.awaited);
        let new = answer.is_some() && entry.answer.as_ref() != answer;
        if new {
            entry.answer = answer.cloned();
        }
        let text = (first || new).then(|| entry.slot.shared.text.clone());
        if first && !self.names_are_awaited() {
            self.leaving.clear();
        }
        text
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.entries.iter().chain(&self.leaving)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> + Clone {
        self.entries().map(|entry| &*entry.slot)
    }

    /// The slots with a name that is to be followed, and what it stands for as far as is known.
    pub(super) fn named(&self) -> impl Iterator<Item = (&SharedSlot, Option<&Answer>)> {
        let named = self.entries.iter().filter(|entry| entry.slot.is_named());
        named.map(|entry| (&entry.slot, entry.answer.as_ref()))
    }

    /// What all lead to, in order. An endpoint counts once: for the first that leads there.
    pub(super) fn found(&self) -> Vec<(&SharedSlot, Found)> {
        let mut seen = HashSet::new();
        let all = self.entries().flat_map(|entry| entry.found().into_iter().map(move |found| (&entry.slot, found)));
        all.filter(|(_, found)| seen.insert(found.endpoint.clone())).collect()
    }

    /// How much has never been answered so far: names, and the file.
    pub(super) fn awaited(&self) -> usize {
        self.entries.iter().filter(|entry| entry.awaited).count() + usize::from(self.awaits_file)
    }

    /// Whether a name of the file has never been resolved, nor failed to be.
    fn names_are_awaited(&self) -> bool {
        self.entries.iter().skip(self.configured).any(|entry| entry.awaited)
    }

    /// Appends the file's servers: those that are not configured.
    fn put_listed(&mut self, servers: Vec<Server>, known: &mut Known) {
        let mut seen: HashSet<String> = self.entries.iter().map(|entry| entry.slot.shared.text.clone()).collect();
        for server in servers.iter().filter(|server| seen.insert(server.address.to_string())) {
            let entry = self.entry(server, known);
            self.entries.push(entry);
        }
        self.listed = Some(servers);
    }

    /// An entry for a server, with what is known of it.
    fn entry(&mut self, server: &Server, known: &mut Known) -> Entry {
        let before = known.entries.remove(&server.address.to_string());
        let index = match &before {
            // With its index, a slot keeps the task that follows its name.
            Some(before) if known.ours => before.slot.index,
            _ => {
                self.next += 1;
                self.next - 1
            }
        };
        match before {
            Some(before) if known.ours && before.slot.server == *server => before,
            Some(Entry { slot, answer, awaited }) => {
                let slot = Arc::new(Slot::new(index, server, |_| Some(slot.shared.clone())));
                let awaited = if known.ours { awaited } else { slot.is_named() && answer.is_none() };
                Entry { slot, answer, awaited }
            }
            None => {
                let slot = Arc::new(Slot::new(index, server, |_| None));
                Entry { awaited: slot.is_named(), slot, answer: None }
            }
        }
    }
}

impl Entry {
    /// What it leads to.
    pub(super) fn found(&self) -> Vec<Found> {
        self.slot.found(self.answer.as_ref())
    }
}

/// Entries that were there before, by the text of their slots.
#[derive(Default)]
struct Known {
    entries: HashMap<String, Entry>,
    /// Whether they are of the same pool.
    ours: bool,
}

impl Known {
    fn of(entries: impl Iterator<Item = Entry>, ours: bool) -> Known {
        Known { entries: entries.map(|entry| (entry.slot.shared.text.clone(), entry)).collect(), ours }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::config::model::ServerAddress;
    use crate::origin::pools::tests::{named_origin, origin};

    fn socket(text: &str, weight: usize) -> Server {
        Server { address: ServerAddress::Socket(text.parse().unwrap()), weight, tier: 0 }
    }

    fn name(host: &str) -> Server {
        Server { address: ServerAddress::Name { host: host.to_owned(), port: 80 }, weight: 1, tier: 0 }
    }

    fn answer(last: u8) -> Answer {
        Answer::Addresses(vec![IpAddr::from([10, 0, 0, last])])
    }

    fn with_file(mut origin: Origin, file: &str) -> Origin {
        origin.servers_file = Some(file.into());
        origin
    }

    /// Slot, endpoint and weight of all that is found.
    fn found(sources: &Sources) -> Vec<(usize, String, usize)> {
        let found = sources.found().into_iter();
        found.map(|(slot, found)| (slot.index, found.endpoint.to_string(), found.weight)).collect()
    }

    fn expected(found: &[(usize, &str, usize)]) -> Vec<(usize, String, usize)> {
        found.iter().map(|(index, endpoint, weight)| (*index, endpoint.to_string(), *weight)).collect()
    }

    #[test]
    fn listed_servers_come_and_go_after_the_configured_ones() {
        let mut sources = Sources::new(&with_file(origin("o", &[("10.0.0.1:80", 1)]), "list"));
        assert_eq!(sources.awaited(), 1);
        sources.listed(Some(vec![socket("10.0.0.2:80", 1), socket("10.0.0.3:80", 1)]));
        assert_eq!(sources.awaited(), 0);
        assert_eq!(found(&sources), expected(&[(0, "10.0.0.1:80", 1), (1, "10.0.0.2:80", 1), (2, "10.0.0.3:80", 1)]));
        let kept = sources.entries[2].slot.clone();
        sources.listed(Some(vec![socket("10.0.0.4:80", 1), socket("10.0.0.3:80", 1), socket("10.0.0.2:80", 5)]));
        let all = [(0, "10.0.0.1:80", 1), (3, "10.0.0.4:80", 1), (2, "10.0.0.3:80", 1), (1, "10.0.0.2:80", 5)];
        assert_eq!(found(&sources), expected(&all));
        assert!(Arc::ptr_eq(&kept, &sources.entries[2].slot));
        sources.listed(None);
        assert_eq!(found(&sources), expected(&all));
        sources.listed(Some(Vec::new()));
        assert_eq!(found(&sources), expected(&all[..1]));
    }

    #[test]
    fn who_leaves_stays_until_the_names_that_come_are_resolved() {
        let mut sources = Sources::new(&with_file(origin("o", &[]), "list"));
        sources.listed(Some(vec![socket("10.0.0.1:80", 1), socket("10.0.0.2:80", 1)]));
        sources.listed(Some(vec![name("a.test"), name("b.test"), socket("10.0.0.2:80", 1)]));
        assert_eq!(found(&sources), expected(&[(1, "10.0.0.2:80", 1), (0, "10.0.0.1:80", 1)]));
        sources.resolved(2, Some(&answer(3)));
        assert_eq!(found(&sources).len(), 3);
        // A failure is an answer too.
        sources.resolved(3, None);
        assert_eq!(found(&sources), expected(&[(2, "10.0.0.3:80", 1), (1, "10.0.0.2:80", 1)]));
        // Back before it was gone: the same slot.
        sources.listed(Some(vec![name("c.test")]));
        sources.listed(Some(vec![name("c.test"), socket("10.0.0.2:80", 1)]));
        let all = [(1, "10.0.0.2:80", 1), (2, "10.0.0.3:80", 1)];
        assert_eq!(found(&sources), expected(&all));
        sources.listed(Some(vec![socket("10.0.0.2:80", 1)]));
        assert_eq!(found(&sources), expected(&all[..1]));
    }

    #[test]
    fn a_server_that_is_configured_and_listed_counts_once() {
        let mut sources = Sources::new(&with_file(origin("o", &[("10.0.0.1:80", 1)]), "list"));
        sources.listed(Some(vec![socket("10.0.0.1:80", 9), name("a.test"), name("b.test"), name("a.test")]));
        assert_eq!(sources.entries.len(), 3);
        assert_eq!(sources.awaited(), 2);
        // By another name, too.
        sources.resolved(1, Some(&answer(1)));
        sources.resolved(2, Some(&answer(2)));
        assert_eq!(found(&sources), expected(&[(0, "10.0.0.1:80", 1), (2, "10.0.0.2:80", 1)]));
        assert_eq!(sources.awaited(), 0);
    }

    #[test]
    fn a_failure_takes_nothing_away() {
        let mut sources = Sources::new(&named_origin("o", "a.test", 80));
        assert_eq!((sources.awaited(), found(&sources)), (1, vec![]));
        sources.resolved(0, Some(&answer(1)));
        sources.resolved(0, None);
        assert_eq!((sources.awaited(), found(&sources)), (0, expected(&[(0, "10.0.0.1:80", 1)])));
        assert_eq!(sources.resolved(7, Some(&answer(1))), None);
    }

    #[test]
    fn a_reload_keeps_what_names_stand_for_and_what_is_listed() {
        let before = with_file(named_origin("o", "a.test", 80), "list");
        let mut sources = Sources::new(&before);
        sources.listed(Some(vec![name("b.test"), name("c.test"), socket("10.0.0.9:80", 1)]));
        sources.resolved(0, Some(&answer(1)));
        sources.resolved(1, Some(&answer(2)));
        let state = sources.entries[1].slot.shared.clone();

        // `b.test` is configured now, and `a.test` is not any more.
        let after = Sources::after(&with_file(named_origin("o", "b.test", 80), "list"), &before, &sources);
        assert_eq!(found(&after), expected(&[(0, "10.0.0.2:80", 1), (2, "10.0.0.9:80", 1)]));
        assert!(Arc::ptr_eq(&after.entries[0].slot.shared, &state));
        assert_eq!(after.awaited(), 1, "c.test has never been resolved");

        // Another file is another list.
        let other = Sources::after(&with_file(named_origin("o", "b.test", 80), "other"), &before, &sources);
        assert_eq!((found(&other), other.awaited()), (expected(&[(0, "10.0.0.2:80", 1)]), 1));
        let none = Sources::after(&named_origin("o", "b.test", 80), &before, &sources);
        assert_eq!((found(&none), none.awaited()), (expected(&[(0, "10.0.0.2:80", 1)]), 0));
    }
}
