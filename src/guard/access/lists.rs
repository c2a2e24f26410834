//! Files of networks, which are read again when they change.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use log::info;

use super::networks::NetworkSet;
use crate::config::model::{Config, Networks};
use crate::config::networks::{LARGEST_LIST, parse};
use crate::watched::{self, Watcher, Watching};

/// The lists of a configuration. Rules that name the same file share it.
#[derive(Default)]
pub struct Lists(HashMap<PathBuf, Arc<List>>);

/// A file's networks. It is watched for as long as a rule has it.
pub(super) struct List {
    set: Arc<ArcSwap<NetworkSet>>,
    _watching: Option<Watching>,
}

impl Lists {
    /// Reads all files of networks that the configuration names, but those that `previous` has, and has them watched, if
    /// there is a watcher. What is wrong with them later changes nothing: the last good content stays in force. Blocks.
    ///
    /// # Errors
    /// A file cannot be read, or is no list. There is nothing to fall back on then: without its list, a rule would let in
    /// whom it is to keep out.
    pub fn open(config: &Config, watcher: Option<&Watcher>, previous: Option<&Lists>) -> Result<Lists, String> {
        let mut lists = HashMap::new();
        for path in named(config) {
            if lists.contains_key(path) {
                continue;
            }
            let list = match previous.and_then(|previous| previous.0.get(path)) {
                Some(list) => list.clone(),
                None => Arc::new(List::open(path, watcher).map_err(|why| format!("{} {why}", path.display()))?),
            };
            lists.insert(path.clone(), list);
        }
        Ok(Lists(lists))
    }

    pub(super) fn get(&self, path: &Path) -> Option<Arc<List>> {
        self.0.get(path).cloned()
    }
}

impl List {
    pub(super) fn with<T>(&self, look: impl FnOnce(&NetworkSet) -> T) -> T {
        look(&self.set.load())
    }

    fn open(path: &Path, watcher: Option<&Watcher>) -> Result<List, String> {
        let set: Arc<ArcSwap<NetworkSet>> = Arc::default();
        let load = {
            let (path, set) = (path.to_owned(), set.clone());
            move || load(&path, &set)
        };
        let watching = match watcher {
            Some(watcher) => {
                watcher.load(format!("the list {}", path.display()), vec![path.to_owned()], load).map(Some)
            }
            None => load().map(|()| None),
        }?;
        Ok(List { set, _watching: watching })
    }
}

/// The files that the rules of all sites and routes name.
fn named(config: &Config) -> impl Iterator<Item = &PathBuf> {
    let rules = config.policies().filter_map(|policy| policy.guard.access.as_ref());
    rules.flat_map(|access| access.allow.iter().chain(&access.deny)).filter_map(|networks| match networks {
        Networks::File(path) => Some(path),
        Networks::These(_) => None,
    })
}

fn load(path: &Path, set: &ArcSwap<NetworkSet>) -> Result<(), String> {
    let text = text(path)?;
    let (new, old) = (networks(&text)?, set.load());
    if **old == new {
        return Ok(());
    }
    // Whoever writes a file in place empties it first, and may then take its time.
    if text.trim().is_empty() {
        return Err("is empty; a list of no networks has a comment".to_owned());
    }
    info!("{} has {} ranges of addresses; it had {}", path.display(), new.ranges(), old.ranges());
    set.store(Arc::new(new));
    Ok(())
}

fn text(path: &Path) -> Result<String, String> {
    let bytes = watched::read(path, LARGEST_LIST)?;
    String::from_utf8(bytes).map_err(|why| format!("is not UTF-8 from byte {} on", why.utf8_error().valid_up_to()))
}

fn networks(text: &str) -> Result<NetworkSet, String> {
    let networks = parse(text).map_err(|(line, why)| format!("is wrong on line {line}: {why}"))?;
    Ok(networks.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::IpAddr;

    use super::*;

    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> File {
            let path = std::env::temp_dir().join(format!("foreland-list-{}-{name}", std::process::id()));
            fs::write(&path, text).unwrap();
            File(path)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn holds(list: &List, address: &str) -> bool {
        list.with(|set| set.contains(address.parse::<IpAddr>().unwrap()))
    }

    #[test]
    fn what_is_wrong_changes_nothing() {
        let file = File::new("again", "10.0.0.0/8\n");
        let list = List::open(&file.0, None).unwrap();
        assert!(holds(&list, "10.1.2.3") && !holds(&list, "192.0.2.1"));
        let write = |text: &[u8]| {
            fs::write(&file.0, text).unwrap();
            load(&file.0, &list.set)
        };
        assert!(write(b"192.0.2.0/24\n10.0.0.1/8\n").unwrap_err().starts_with("is wrong on line 2: "));
        assert!(write(b"192.0.2.0/24 # \xff").unwrap_err().contains("not UTF-8 from byte 15"));
        assert!(write(b" \n").unwrap_err().contains("is empty"));
        assert!(holds(&list, "10.1.2.3") && !holds(&list, "192.0.2.1"));
        assert_eq!(write(b"192.0.2.0/24"), Ok(()));
        assert!(!holds(&list, "10.1.2.3") && holds(&list, "192.0.2.1"));
        assert_eq!(write(b"# nobody"), Ok(()));
        assert!(!holds(&list, "192.0.2.1"));
        fs::remove_file(&file.0).unwrap();
        assert!(load(&file.0, &list.set).unwrap_err().contains("cannot be opened"));
    }

    #[test]
    fn a_list_that_cannot_be_read_at_first_is_an_error() {
        let path = std::env::temp_dir().join("foreland-no-such-list");
        assert!(List::open(&path, None).err().unwrap().contains("cannot be opened"));
        let file = File::new("first", "here");
        assert!(List::open(&file.0, None).err().unwrap().starts_with("is wrong on line 1: "));
    }

    #[test]
    fn a_watched_list_follows_its_file() {
        let file = File::new("watched", "10.0.0.0/8\n");
        let watcher = Watcher::start().unwrap();
        let list = List::open(&file.0, Some(&watcher)).unwrap();
        fs::write(&file.0, "192.0.2.0/24\n").unwrap();
        let (sender, changed) = std::sync::mpsc::channel();
        // Behind the list's in the watcher's order: when this one is called, the list has been.
        let probe = watcher.watch("probe", vec![file.0.clone()], move || sender.send(()).map_err(|e| e.to_string()));
        while !holds(&list, "192.0.2.1") {
            changed.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
            fs::write(&file.0, "192.0.2.0/24\n# again\n").unwrap();
        }
        assert!(!holds(&list, "10.1.2.3"));
        drop((list, probe));
        assert_eq!(watcher.totals().watched, 0);
    }
}
