//! Files that are read again when they change: lists of networks, databases, certificates.
//!
//! One thread looks at all of them, once a second. Paths are looked at, never held open: editors replace a file by renaming
//! another one over it, and a Kubernetes volume changes where a symbolic link leads to. What is read, and what becomes of
//! it, is the business of whoever watches; what is said in the log when that fails, and how often, is decided here.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::{error, info};
use rustix::fs::OFlags;

/// How often the paths are looked at.
const POLL: Duration = Duration::from_secs(1);
/// How long changed files must stay as they are before they count: whoever writes them may not be done. It is also more than
/// the tick of any clock of a file system that is in use, so two changes that far apart differ in their times.
const SETTLE: Duration = Duration::from_millis(100);
/// Looks after which what cannot be put in force is tried again, though the files have not changed: what was wrong may have
/// been a lack of memory or of file descriptors.
const RETRY: u32 = 30;

/// The thread that looks. It ends when this, its clones and all it watches are gone.
#[derive(Clone)]
pub struct Watcher {
    list: Arc<List>,
    /// Never sent to: closed when the last handle is dropped.
    _alive: Sender<()>,
}

/// What has become of the watched files since the watcher began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// What is watched now.
    pub watched: usize,
    /// Of these, what changed last to something that could not be put in force: what was before still is.
    pub failing: usize,
    /// Changes that have been put in force.
    pub changes: u64,
    /// Changes that could not be.
    pub failures: u64,
}

/// Files that are watched. Until it is dropped.
pub struct Watching {
    entry: Arc<Entry>,
    _watcher: Watcher,
}

#[derive(Default)]
struct List {
    entries: Mutex<Vec<Weak<Entry>>>,
    changes: AtomicU64,
    failures: AtomicU64,
}

struct Entry {
    /// For the log.
    what: String,
    paths: Vec<PathBuf>,
    state: Mutex<State>,
    /// Why the newest content is not in force.
    problem: Mutex<Option<String>>,
}

struct State {
    /// Of the last look; `None`: the path leads to nothing that can be looked at.
    stamps: Vec<Option<Stamp>>,
    due: Due,
    on_change: OnChange,
}

type OnChange = Box<dyn FnMut() -> Result<(), String> + Send>;

/// Files before they are read.
struct Seen {
    stamps: Vec<Option<Stamp>>,
    /// Some have changed just now, and may again within a tick of the file system's clock, which would not show.
    fresh: bool,
}

/// When the files are read next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    OnChange,
    /// Once they have stayed as they are until the next look.
    Settling,
    /// After so many looks, or on a change.
    Retry(u32),
}

/// What changes with a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also by a change that sets the time of modification back.
    changed: (i64, i64),
}

impl Watcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start() -> io::Result<Watcher> {
        let (watcher, ended) = Watcher::without_thread();
        let list = watcher.list.clone();
        std::thread::Builder::new().name("files".to_owned()).spawn(move || run(&list, &ended))?;
        Ok(watcher)
    }

    fn without_thread() -> (Watcher, Receiver<()>) {
        let (alive, ended) = bounded(0);
        (Watcher { list: Arc::default(), _alive: alive }, ended)
    }

    /// Watches `paths` as one thing, which the log calls `what` (`the certificate cdn.pem`): when one of them has changed and
    /// all have stayed as they are for a moment, `on_change` is called, once, on the watcher's thread, where it may block. It
    /// reads the files and puts them in force, or says why that cannot be done: a phrase that follows `what`. Then all stays
    /// as it was, which is logged once, and it is called again when something changes, and every half minute.
    ///
    /// What changes from here on is not missed; `on_change` may be called though nothing has changed.
    pub fn watch(
        &self,
        what: impl Into<String>,
        paths: Vec<PathBuf>,
        on_change: impl FnMut() -> Result<(), String> + Send + 'static,
    ) -> Watching {
        let seen = Seen::now(&paths);
        self.add(what.into(), paths, seen, Box::new(on_change))
    }

    /// Calls `load` here and now, and if that succeeds, watches as [`Watcher::watch`] does. Blocks.
    ///
    /// # Errors
    /// What `load` says: nothing is watched then.
    pub fn load(
        &self,
        what: impl Into<String>,
        paths: Vec<PathBuf>,
        mut load: impl FnMut() -> Result<(), String> + Send + 'static,
    ) -> Result<Watching, String> {
        let seen = Seen::now(&paths);
        load()?;
        Ok(self.add(what.into(), paths, seen, Box::new(load)))
    }

    fn add(&self, what: String, paths: Vec<PathBuf>, seen: Seen, on_change: OnChange) -> Watching {
        let due = if seen.fresh { Due::Settling } else { Due::OnChange };
        let state = Mutex::new(State { stamps: seen.stamps, due, on_change });
        let entry = Arc::new(Entry { what, paths, state, problem: Mutex::default() });
        lock(&self.list.entries).push(Arc::downgrade(&entry));
        Watching { entry, _watcher: self.clone() }
    }

    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            changes: self.list.changes.load(Ordering::Relaxed),
            failures: self.list.failures.load(Ordering::Relaxed),
            ..Totals::default()
        };
        for entry in lock(&self.list.entries).iter().filter_map(Weak::upgrade) {
            totals.watched += 1;
            totals.failing += usize::from(lock(&entry.problem).is_some());
        }
        totals
    }
}

impl Watching {
    /// Why the newest content of the files is not in force; `None`: it is.
    pub fn problem(&self) -> Option<String> {
        lock(&self.entry.problem).clone()
    }
}

/// Reads a regular file whole. The error is a phrase that follows its name. Blocks.
///
/// # Errors
/// It cannot be read, is no regular file, or has more than `largest` bytes.
pub fn read(path: &Path, largest: u64) -> Result<Vec<u8>, String> {
    // Should it be a pipe, opening it does not wait for whoever writes.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(|why| format!("cannot be opened: {why}"))?;
    let metadata = file.metadata().map_err(|why| format!("cannot be read: {why}"))?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let too_large = || format!("is larger than {largest} bytes");
    if metadata.len() > largest {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let expected = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(expected.saturating_add(1)).map_err(|why| format!("cannot be held: {why}"))?;
    // It may grow meanwhile.
    file.take(largest.saturating_add(1)).read_to_end(&mut bytes).map_err(|why| format!("cannot be read: {why}"))?;
    if bytes.len() as u64 > largest {
        return Err(too_large());
    }
    Ok(bytes)
}

fn run(list: &List, ended: &Receiver<()>) {
    let mut wait = POLL;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(wait) {
        wait = if list.look() { SETTLE } else { POLL };
    }
}

impl List {
    /// Looks at all files once; whether some of them have changed just now.
    fn look(&self) -> bool {
        let entries: Vec<_> = {
            let mut entries = lock(&self.entries);
            entries.retain(|entry| entry.strong_count() > 0);
            entries.clone()
        };
        let mut settling = false;
        for entry in entries {
            // The lock on the list is not held: what is called may watch further files, or no longer watch these.
            if let Some(entry) = entry.upgrade() {
                settling |= entry.look(self);
            }
        }
        settling
    }
}

impl Entry {
    fn look(&self, list: &List) -> bool {
        let mut state = lock(&self.state);
        let stamps: Vec<_> = self.paths.iter().map(|path| Stamp::at(path)).collect();
        if stamps != state.stamps {
            (state.stamps, state.due) = (stamps, Due::Settling);
            return true;
        }
        match state.due {
            Due::OnChange => return false,
            Due::Retry(looks @ 1..) => {
                state.due = Due::Retry(looks - 1);
                return false;
            }
            Due::Settling | Due::Retry(0) => {}
        }
        // What it reads with may be another's crate: the thread is there for the other files too.
        let on_change = &mut state.on_change;
        let outcome = catch_unwind(AssertUnwindSafe(on_change));
        let outcome = outcome.unwrap_or_else(|_| Err("cannot be read: its reader has failed".to_owned()));
        let mut problem = lock(&self.problem);
        match outcome {
            Ok(()) => {
                list.changes.fetch_add(1, Ordering::Relaxed);
                state.due = Due::OnChange;
                if problem.take().is_some() {
                    info!("{} is in force again", self.what);
                }
            }
            Err(why) => {
                list.failures.fetch_add(1, Ordering::Relaxed);
                state.due = Due::Retry(RETRY);
                if problem.as_ref() != Some(&why) {
                    error!("{} {why}; what was in force before stays", self.what);
                }
                *problem = Some(why);
            }
        }
        false
    }
}

impl Seen {
    fn now(paths: &[PathBuf]) -> Seen {
        let stamps: Vec<_> = paths.iter().map(|path| Stamp::at(path)).collect();
        let now = SystemTime::now();
        Seen { fresh: stamps.iter().flatten().any(|stamp| stamp.is_fresh(now)), stamps }
    }
}

impl Stamp {
    fn at(path: &Path) -> Option<Stamp> {
        std::fs::metadata(path).as_ref().ok().map(Stamp::of)
    }

    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the last change was less than [`SETTLE`] ago, or is still to come by this clock.
    fn is_fresh(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0));
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now < changed.saturating_add(SETTLE)
    }
}

/// Nothing is half done under these locks that the next call would not do anew.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    /// A folder of its own, removed as it is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("foreland-watched-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A watcher that looks when it is told to, and the contents that were read.
    struct Bench {
        folder: Folder,
        watcher: Watcher,
        _ended: Receiver<()>,
        read: Arc<Mutex<Vec<Result<String, String>>>>,
    }

    impl Bench {
        fn new() -> Bench {
            let (watcher, _ended) = Watcher::without_thread();
            Bench { folder: Folder::new(), watcher, _ended, read: Arc::default() }
        }

        /// Watches files, whose contents are put one behind the other; those that have a `!` are wrong.
        fn watch(&self, paths: &[PathBuf]) -> Watching {
            let (files, sink) = (paths.to_vec(), self.read.clone());
            self.watcher.watch("list", paths.to_vec(), move || {
                let texts: Result<Vec<_>, _> = files.iter().map(|path| read(path, 1 << 10)).collect();
                let text = texts.map(|texts| String::from_utf8(texts.concat()).unwrap());
                let text = text.and_then(|text| if text.contains('!') { Err("is wrong".to_owned()) } else { Ok(text) });
                let outcome = text.as_ref().map(|_| ()).map_err(Clone::clone);
                lock(&sink).push(text);
                outcome
            })
        }

        /// Looks until all has settled; what was read meanwhile.
        fn settle(&self) -> Vec<Result<String, String>> {
            while self.watcher.list.look() {}
            std::mem::take(&mut *lock(&self.read))
        }
    }

    fn ok(text: &str) -> Vec<Result<String, String>> {
        vec![Ok(text.to_owned())]
    }

    #[test]
    fn a_change_counts_when_it_has_settled() {
        let bench = Bench::new();
        let path = bench.folder.write("a", "1");
        let _watching = bench.watch(std::slice::from_ref(&path));
        // It has only just been written: it is read once more.
        assert_eq!(bench.settle(), ok("1"));
        assert_eq!(bench.settle(), []);
        bench.folder.write("a", "12");
        assert!(bench.watcher.list.look() && lock(&bench.read).is_empty());
        bench.folder.write("a", "123");
        assert!(bench.watcher.list.look() && lock(&bench.read).is_empty());
        assert_eq!(bench.settle(), ok("123"));
        assert_eq!(bench.watcher.totals(), Totals { watched: 1, failing: 0, changes: 2, failures: 0 });
    }

    #[test]
    fn files_that_belong_together_are_read_together() {
        let bench = Bench::new();
        let paths = [bench.folder.write("a", "1"), bench.folder.write("b", "1")];
        let _watching = bench.watch(&paths);
        bench.settle();
        bench.folder.write("b", "22");
        assert!(bench.watcher.list.look());
        bench.folder.write("a", "22");
        assert_eq!(bench.settle(), ok("2222"));
    }

    #[test]
    fn renames_and_links_are_seen() {
        let bench = Bench::new();
        let path = bench.folder.write("a", "1");
        let link = bench.folder.0.join("link");
        symlink("a", &link).unwrap();
        let _watching = bench.watch(std::slice::from_ref(&link));
        bench.settle();
        fs::rename(bench.folder.write("new", "2"), &path).unwrap();
        assert_eq!(bench.settle(), ok("2"));
        bench.folder.write("b", "3");
        symlink("b", bench.folder.0.join("next")).unwrap();
        fs::rename(bench.folder.0.join("next"), &link).unwrap();
        assert_eq!(bench.settle(), ok("3"));
    }

    #[test]
    fn what_is_wrong_is_tried_again() {
        let bench = Bench::new();
        let path = bench.folder.write("a", "1");
        let watching = bench.watch(std::slice::from_ref(&path));
        bench.settle();
        fs::remove_file(&path).unwrap();
        assert!(bench.settle()[0].as_ref().unwrap_err().contains("cannot be opened"));
        assert!(watching.problem().is_some());
        bench.folder.write("a", "!");
        assert_eq!(bench.settle(), [Err("is wrong".to_owned())]);
        assert_eq!(bench.watcher.totals(), Totals { watched: 1, failing: 1, changes: 1, failures: 2 });
        for _ in 0..RETRY {
            assert_eq!(bench.settle(), []);
        }
        assert_eq!(bench.settle(), [Err("is wrong".to_owned())]);
        bench.folder.write("a", "good");
        assert_eq!(bench.settle(), ok("good"));
        assert_eq!(watching.problem(), None);
    }

    #[test]
    fn nothing_is_read_for_those_who_have_left() {
        let bench = Bench::new();
        let path = bench.folder.write("a", "1");
        let watching = bench.watch(std::slice::from_ref(&path));
        bench.settle();
        drop(watching);
        bench.folder.write("a", "22");
        assert_eq!(bench.settle(), []);
        assert_eq!(bench.watcher.totals().watched, 0);
    }

    #[test]
    fn the_thread_looks_and_ends_with_its_last_handle() {
        let folder = Folder::new();
        let path = folder.write("a", "1");
        let watcher = Watcher::start().unwrap();
        let (sender, changes) = mpsc::channel();
        let watching = watcher.watch("list", vec![path], move || sender.send(()).map_err(|why| why.to_string()));
        drop(watcher);
        folder.write("a", "22");
        changes.recv_timeout(Duration::from_secs(30)).unwrap();
        drop(watching);
        // The sender goes with what is watched, on whichever thread lets go of it last.
        while changes.recv_timeout(Duration::from_secs(30)).is_ok() {}
        assert_eq!(changes.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn what_cannot_be_loaded_at_first_is_not_watched() {
        let bench = Bench::new();
        let path = bench.folder.write("a", "1");
        let load =
            |outcome: Result<(), String>| bench.watcher.load("list", vec![path.clone()], move || outcome.clone());
        assert_eq!(load(Err("is wrong".to_owned())).err().as_deref(), Some("is wrong"));
        assert_eq!(bench.watcher.totals().watched, 0);
        let watching = load(Ok(())).unwrap();
        assert_eq!((bench.watcher.totals().watched, watching.problem()), (1, None));
        // The failure of one is none of another's, not even that of a panic.
        let _panics = bench.watcher.watch("other", vec![path.clone()], || panic!("on purpose"));
        bench.folder.write("a", "22");
        bench.settle();
        assert_eq!(bench.watcher.totals(), Totals { watched: 2, failing: 1, changes: 1, failures: 1 });
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let folder = Folder::new();
        let path = folder.write("a", "12345");
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err(), "is larger than 4 bytes");
        assert_eq!(read(&folder.0, 4).unwrap_err(), "is not a regular file");
        assert_eq!(read(Path::new("/dev/zero"), 4).unwrap_err(), "is not a regular file");
        assert!(read(&folder.0.join("none"), 4).unwrap_err().contains("cannot be opened"));
    }
}
