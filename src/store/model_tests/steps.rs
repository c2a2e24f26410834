//! What a schedule is made of.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::oracle::{GROUPS, RESOURCES, Resource, TAGS, VARIANTS};
use crate::invalidate::Selector;

/// A resource's variant, by their numbers.
pub type Place = (usize, usize);

#[derive(Clone, Debug)]
pub enum Step {
    /// A request comes.
    Ask(Place),
    /// The answer to one that has come begins, with these labels.
    Begin {
        which: Index,
        labels: u8,
        length: Length,
        aside: bool,
    },
    /// More of it comes.
    Write(Index),
    End(Index, Ending),
    /// All of that at once.
    Store {
        place: Place,
        labels: u8,
        length: Length,
    },
    /// Somebody asks for what is in the store, or on its way there.
    Look(Place, Look),
    /// Somebody asks the origin whether what is stored is still right.
    Validate(Place),
    /// It is; with other labels, maybe.
    Confirm {
        which: Index,
        labels: Option<u8>,
    },
    Purge {
        selectors: Vec<Selector>,
        soft: bool,
        wait: bool,
    },
    /// A request changes something: of what is nowhere stored, that is not written down.
    Change(Place),
    /// What is in memory is evicted.
    LoseMemory,
    /// No file is kept open.
    CloseFiles,
    /// So many places of a disk's index are compared with the ledger, or all.
    Sweep {
        disk: Index,
        places: Option<usize>,
    },
    /// What is in memory is compared with it, and what everything has been compared with is forgotten. `late`: two
    /// minutes after the last request came.
    Tidy {
        late: bool,
    },
    /// The ledger has become too long.
    GiveUp,
    Compact,
    Restart(Restart),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Short,
    /// Larger than a block.
    Long,
    /// So large that it goes to the disk while it comes.
    Spilled,
}

#[derive(Clone, Copy, Debug)]
pub enum Ending {
    Well,
    /// Nobody waits for the disk.
    Aside,
    Failed,
}

#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// In both tiers.
    Find,
    /// In memory alone, as the hot path does first.
    Memory,
    /// With the fills, as Pingora's cache does.
    Lookup,
}

#[derive(Clone, Debug)]
pub enum Restart {
    Clean,
    /// The process is killed.
    Crash,
    /// The same, and so much of what was not known to be durable in the ledgers' files is lost, or is not what it was.
    Torn {
        left: Index,
        noise: Vec<u8>,
    },
    /// The same, and the ledgers of some of the disks are damaged at some byte, or gone.
    Corrupt {
        disks: u8,
        at: Option<Index>,
    },
}

fn place() -> impl Strategy<Value = Place> {
    (0..RESOURCES.len(), prop_oneof![3 => Just(0), 1 => Just(VARIANTS - 1)])
}

fn length() -> impl Strategy<Value = Length> {
    prop_oneof![30 => Just(Length::Short), 4 => Just(Length::Long), 1 => Just(Length::Spilled)]
}

fn labels() -> impl Strategy<Value = u8> {
    0u8..1 << (TAGS.len() + GROUPS.len())
}

fn selector() -> impl Strategy<Value = Selector> {
    let of = || select(&RESOURCES[..]);
    // Some hosts without their ports.
    let host = || (of(), any::<bool>()).prop_map(|(of, whole)| if whole { of.host } else { name(of.host) }.into());
    let path = || select(&["/", "/a", "/a/", "/a/b", "/x"][..]);
    prop_oneof![
        1 => Just(Selector::Everything),
        1 => select(&["s", "t"][..]).prop_map(|name| Selector::Site(name.into())),
        2 => host().prop_map(Selector::Host),
        4 => (host(), path(), any::<bool>()).prop_map(|(host, path, raw)| Selector::Prefix { host, path: path.into(), raw }),
        4 => of().prop_map(|Resource { host, path, query, .. }| Selector::Url {
            host: host.into(),
            path: path.into(),
            query: query.map(Into::into),
        }),
        5 => select(&TAGS[..]).prop_map(|tag| Selector::Tag(tag.into())),
        3 => (of(), select(&GROUPS[..])).prop_map(|(of, name)| Selector::Group { host: of.host.into(), name: name.into() }),
    ]
}

fn name(host: &'static str) -> &'static str {
    host.split_once(':').map_or(host, |(name, _)| name)
}

fn restart() -> impl Strategy<Value = Restart> {
    let noise = prop_oneof![Just(Vec::new()), proptest::collection::vec(any::<u8>(), 1..40)];
    prop_oneof![
        2 => Just(Restart::Clean),
        3 => Just(Restart::Crash),
        3 => (any::<Index>(), noise).prop_map(|(left, noise)| Restart::Torn { left, noise }),
        1 => (1u8..8, proptest::option::of(any::<Index>())).prop_map(|(disks, at)| Restart::Corrupt { disks, at }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<Index>;
    let ending = prop_oneof![4 => Just(Ending::Well), 2 => Just(Ending::Aside), 1 => Just(Ending::Failed)];
    let look = prop_oneof![Just(Look::Find), Just(Look::Memory), Just(Look::Lookup)];
    let purge = (proptest::collection::vec(selector(), 1..3), any::<bool>(), any::<bool>());
    prop_oneof![
        4 => place().prop_map(Step::Ask),
        4 => (which(), labels(), length(), any::<bool>())
            .prop_map(|(which, labels, length, aside)| Step::Begin { which, labels, length, aside }),
        1 => which().prop_map(Step::Write),
        4 => (which(), ending).prop_map(|(which, how)| Step::End(which, how)),
        9 => (place(), labels(), length()).prop_map(|(place, labels, length)| Step::Store { place, labels, length }),
        9 => (place(), look).prop_map(|(place, how)| Step::Look(place, how)),
        2 => place().prop_map(Step::Validate),
        2 => (which(), proptest::option::of(labels())).prop_map(|(which, labels)| Step::Confirm { which, labels }),
        6 => purge.prop_map(|(selectors, soft, wait)| Step::Purge { selectors, soft, wait }),
        3 => place().prop_map(Step::Change),
        1 => Just(Step::LoseMemory),
        1 => Just(Step::CloseFiles),
        4 => (which(), proptest::option::weighted(0.4, 1usize..4)).prop_map(|(disk, places)| Step::Sweep { disk, places }),
        2 => prop_oneof![2 => Just(false), 1 => Just(true)].prop_map(|late| Step::Tidy { late }),
        1 => prop_oneof![6 => Just(Step::Compact), 1 => Just(Step::GiveUp)],
        2 => restart().prop_map(Step::Restart),
    ]
}

pub fn schedule() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..50)
}
