//! Where responses are kept: in memory, on disks.

use std::path::{Component, Path, PathBuf};

use super::resolve;
use crate::config::decode::Placed;
use crate::config::model::{DiskTier, MemoryTier};
use crate::config::raw;
use crate::config::report::{Place, Report};
use crate::config::units::show_size;
use crate::config::words::OffOr;
use crate::http_cache;

/// The store's tiers.
pub(super) struct Tiers {
    pub memory: Option<MemoryTier>,
    pub disks: Option<Vec<DiskTier>>,
    /// Which there are. One that is given and wrong counts as there, so that nothing is said of it twice.
    pub there: http_cache::Tiers,
}

pub(super) fn tiers(root: &raw::Root, base: &Path, report: &mut Report) -> Tiers {
    let Some(raw) = &root.cache else {
        return Tiers { memory: None, disks: None, there: http_cache::Tiers::default() };
    };
    let off = raw.memory.as_ref().filter(|memory| matches!(memory.value, OffOr::Off));
    let disk = raw.disk.is_some() || report.is_wrong("cache.disk");
    let mut there = http_cache::Tiers { memory: off.is_none(), disk };
    if let Some(off) = off.filter(|_| !disk) {
        let message = "nothing could be stored: beside `memory: off`, the key `disk` is needed; to store nothing, a site \
                       says `cache: off`";
        report.error(&off.place, message);
        there = http_cache::Tiers::default();
    }
    let memory = match raw.memory.as_ref().map(|memory| &memory.value) {
        Some(OffOr::Off) => Some(MemoryTier { size: 0, max_object: 0 }),
        Some(OffOr::Keys(keys)) => self::memory(keys, report),
        None => None,
    };
    let disks = disks(raw.disk.as_ref().map_or(&[], |list| &list.0), base, report);
    Tiers { memory, disks, there }
}

fn memory(raw: &raw::Memory, report: &mut Report) -> Option<MemoryTier> {
    let (size, max_object) = (raw.size.as_ref()?, raw.max_object.as_ref()?);
    if max_object.0 > size.0 {
        match max_object.given {
            true => too_large(&max_object.place, max_object.0, "", size.0, report),
            false => too_large(&size.place, max_object.0, ", its default", size.0, report),
        }
        return None;
    }
    Some(MemoryTier { size: size.0, max_object: max_object.0 })
}

fn disks(list: &[Placed<raw::Disk>], base: &Path, report: &mut Report) -> Option<Vec<DiskTier>> {
    let mut taken: Vec<(PathBuf, &Place)> = Vec::new();
    let mut disks = Vec::new();
    for raw in list {
        if let Some(path) = &raw.path {
            claim(&mut taken, plain(&resolve(base, &path.0)), &path.place, report);
        }
        disks.push(disk(raw, base, report));
    }
    disks.into_iter().collect()
}

fn disk(raw: &raw::Disk, base: &Path, report: &mut Report) -> Option<DiskTier> {
    let (path, size, min_free) = (raw.path.as_ref(), raw.size.as_ref()?.0, raw.min_free.as_ref()?.0);
    let max_object = raw.max_object.as_ref().map_or(size, |max_object| max_object.0);
    if let Some(given) = raw.max_object.as_ref().filter(|_| max_object > size) {
        too_large(&given.place, max_object, "", size, report);
        return None;
    }
    let max_objects = raw.max_objects.as_ref().and_then(|most| u64::try_from(most.0).ok());
    Some(DiskTier { path: resolve(base, &path?.0), size, max_object, max_objects, min_free })
}

fn too_large(place: &Place, max_object: u64, hint: &str, size: u64, report: &mut Report) {
    let (object, size) = (show_size(max_object), show_size(size));
    report.error(place, format!("max_object ({object}{hint}) is larger than size ({size})"));
}

/// Notes a folder, or reports the one that it is in conflict with: what one disk keeps, another would count or remove.
fn claim<'a>(taken: &mut Vec<(PathBuf, &'a Place)>, path: PathBuf, place: &'a Place, report: &mut Report) {
    let conflict = taken.iter().find_map(|(other, at)| {
        let how = match (path.starts_with(other), other.starts_with(&path)) {
            (true, true) => "is already taken by",
            (true, false) => "lies inside",
            (false, true) => "contains",
            (false, false) => return None,
        };
        let (path, other) = (path.display(), other.display());
        Some(format!("{path} {how} {} ({other}) on line {}", at.path, at.mark.line))
    });
    match conflict {
        Some(message) => report.error(place, message),
        None => taken.push((path, place)),
    }
}

/// Without `.` and `..`, so that two spellings of one path are equal. Symbolic links are not looked at: the folders need
/// not be there yet.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // The folder above the root is the root.
            Component::ParentDir => _ = plain.pop(),
            component => plain.push(component),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::config::parse;

    /// The errors about two disks with these paths.
    fn said(first: &str, second: &str) -> String {
        let text = format!(
            "listeners: [{{address: '127.0.0.1:1'}}]\norigins: {{a: {{servers: ['127.0.0.1:2']}}}}\n\
             sites: [{{hosts: ['*'], origin: a}}]\n\
             cache: {{disk: [{{path: '{first}', size: 1GiB}}, {{path: '{second}', size: 1GiB}}]}}\n"
        );
        parse(&text, None, "/base".as_ref()).err().map(|errors| errors.to_string()).unwrap_or_default()
    }

    /// A path in one of its spellings.
    fn spelt() -> impl Strategy<Value = (Vec<&'static str>, String)> {
        let step = (prop::sample::select(vec!["a", "b", "ab"]), prop::sample::select(vec!["/", "//", "/./", "/x/../"]));
        prop::collection::vec(step, 1..4).prop_map(|steps| {
            let text = steps.iter().map(|(name, before)| format!("{before}{name}")).collect();
            (steps.iter().map(|(name, _)| *name).collect(), text)
        })
    }

    proptest! {
        /// Two folders have nothing in common, or it is said which has the other, however they are spelt.
        #[test]
        fn folders_are_apart((first, a) in spelt(), (second, b) in spelt()) {
            let said = said(&a, &b);
            let how = match (second.starts_with(&first), first.starts_with(&second)) {
                (true, true) => "is already taken by",
                (true, false) => "lies inside",
                (false, true) => "contains",
                (false, false) => "",
            };
            prop_assert_eq!(said.is_empty(), how.is_empty(), "{}", said);
            prop_assert!(said.contains(how), "{}", said);
        }
    }

    #[test]
    fn a_relative_folder_may_meet_an_absolute_one() {
        assert!(said("cache", "/base/cache/b").contains("/base/cache/b lies inside cache.disk[0].path (/base/cache)"));
        assert!(said("../../../srv", "/srv").contains("already taken"));
        assert_eq!(said("../cache", "/base/cache"), "");
    }
}
