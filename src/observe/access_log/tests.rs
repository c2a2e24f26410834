use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::*;
use crate::config::model::{LogFormat, LogPath};

/// Quick, and small enough that a queue can be filled.
const QUICK: Pace =
    Pace { hand_over: 1 << 10, queue: 32 << 10, flush: Duration::from_millis(5), retry: Duration::from_millis(5) };

/// No test waits this long unless it fails.
const LONG: Duration = Duration::from_secs(30);

/// A file in memory that can be told to fail, to stall, and to take little at a time.
#[derive(Clone, Default)]
struct Fake(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    /// What each file has, oldest first; reopening begins another one while `moves`.
    files: Vec<Vec<u8>>,
    moves: bool,
    stalls: bool,
    /// Bytes that are taken before the next failure; `None`: no failure.
    room: Option<usize>,
    error: Option<io::ErrorKind>,
    refuses_reopening: bool,
    reopened: usize,
}

impl Fake {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    /// Waits until `holds`.
    fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let state = self.0.0.lock().unwrap();
        let (_state, late) = self.0.1.wait_timeout_while(state, LONG, |state| !holds(state)).unwrap();
        assert!(!late.timed_out(), "never: {what}");
    }

    fn file(&self, number: usize) -> String {
        let state = self.0.0.lock().unwrap();
        String::from_utf8(state.files.get(number).cloned().unwrap_or_default()).unwrap()
    }
}

impl Sink for Fake {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.1.wait_while(self.0.0.lock().unwrap(), |state| state.stalls).unwrap();
        let count = match &mut state.room {
            None => bytes.len(),
            Some(0) => {
                self.0.1.notify_all();
                return Err(state.error.unwrap_or(io::ErrorKind::StorageFull).into());
            }
            Some(room) => {
                let count = bytes.len().min(*room);
                *room -= count;
                count
            }
        };
        if state.files.is_empty() {
            state.files.push(Vec::new());
        }
        state.files.last_mut().unwrap().extend_from_slice(&bytes[..count]);
        self.0.1.notify_all();
        Ok(count)
    }

    fn reopen(&mut self) -> io::Result<bool> {
        let mut state = self.0.0.lock().unwrap();
        state.reopened += 1;
        self.0.1.notify_all();
        if state.refuses_reopening {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if state.moves {
            state.files.push(Vec::new());
        }
        Ok(state.moves)
    }

    fn name(&self) -> String {
        "fake".to_owned()
    }
}

fn start(fake: &Fake) -> AccessLog {
    AccessLog::with(LogFormat::Json, fake.clone(), QUICK).unwrap()
}

fn log(log: &AccessLog, id: &str) {
    log.log(&Record { request_id: Some(id), ..Record::default() });
}

/// The ids of the records in `text`, each of whose lines must be whole.
fn ids(text: &str) -> Vec<String> {
    assert!(text.is_empty() || text.ends_with('\n'), "cut short: {text:?}");
    let id = |line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        value["request_id"].as_str().unwrap().to_owned()
    };
    text.lines().map(id).collect()
}

/// A directory of its own for each test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("foreland-access-log-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start_file(path: &Path) -> AccessLog {
    let config = model::AccessLog { path: LogPath::File(path.to_owned()), format: LogFormat::Json };
    AccessLog::start(&config).unwrap()
}

fn read(path: &Path) -> Vec<String> {
    ids(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn nothing_is_lost_while_the_file_keeps_up() {
    const THREADS: usize = 8;
    const RECORDS: usize = 5_000;
    let directory = Directory::new();
    let path = directory.0.join("missing/too/access.log");
    let access = start_file(&path);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let access = &access;
            scope.spawn(move || (0..RECORDS).for_each(|n| log(access, &format!("{thread}-{n}"))));
        }
    });
    assert!(access.shutdown(LONG));
    let stats = access.stats();
    assert_eq!(stats, Stats { written: (THREADS * RECORDS) as u64, dropped: 0, errors: 0 });
    let found: BTreeSet<_> = read(&path).into_iter().collect();
    assert_eq!(found.len(), THREADS * RECORDS);
}

#[test]
fn a_single_record_appears_without_further_traffic() {
    let fake = Fake::default();
    let access = start(&fake);
    log(&access, "only");
    fake.until("written", |state| state.files.first().is_some_and(|file| file.ends_with(b"\n")));
    assert_eq!(ids(&fake.file(0)), ["only"]);
}

#[test]
fn a_stalled_file_costs_records_and_not_time() {
    let fake = Fake::default();
    fake.set(|state| state.stalls = true);
    let access = start(&fake);
    // If a worker waited for the file, this would never end.
    const RECORDS: u64 = 5_000;
    (0..RECORDS).for_each(|n| log(&access, &n.to_string()));
    let stalled = access.stats();
    assert!(stalled.dropped > 0 && stalled.written == 0, "{stalled:?}");
    fake.set(|state| state.stalls = false);
    assert!(access.shutdown(LONG));
    let stats = access.stats();
    assert_eq!(stats.written + stats.dropped, RECORDS);
    assert_eq!(ids(&fake.file(0)).len() as u64, stats.written);
}

#[test]
fn a_full_disk_that_gets_room_again_has_every_line_once() {
    let fake = Fake::default();
    // The failure comes in the middle of a line.
    fake.set(|state| state.room = Some(50));
    let access = start(&fake);
    ["a", "b", "c"].iter().for_each(|id| log(&access, id));
    // It tries on, and tries to open the file again.
    fake.until("tried again", |state| state.reopened >= 2);
    assert!(access.stats().errors >= 2);
    fake.set(|state| state.room = None);
    assert!(access.shutdown(LONG));
    assert_eq!(ids(&fake.file(0)), ["a", "b", "c"]);
    assert_eq!(access.stats().written, 3);
    assert_eq!(access.stats().dropped, 0);
}

#[test]
fn a_pipe_that_is_full_for_a_moment_is_no_error() {
    let fake = Fake::default();
    fake.set(|state| (state.room, state.error) = (Some(10), Some(io::ErrorKind::WouldBlock)));
    let access = start(&fake);
    log(&access, "a");
    fake.until("full", |state| state.room == Some(0));
    fake.set(|state| state.room = None);
    assert!(access.shutdown(LONG));
    assert_eq!(ids(&fake.file(0)), ["a"]);
    assert_eq!(access.stats().errors, 0);
}

#[test]
fn a_line_that_the_old_file_cut_short_is_whole_in_the_new_one() {
    let fake = Fake::default();
    let access = start(&fake);
    log(&access, "a");
    let line = {
        fake.until("written", |state| state.files.first().is_some_and(|file| file.ends_with(b"\n")));
        fake.file(0).len()
    };
    // "b" fits, "c" does not.
    fake.set(|state| (state.room, state.moves) = (Some(line + line / 2), true));
    ["b", "c"].iter().for_each(|id| log(&access, id));
    fake.until("full", |state| state.room == Some(0));
    access.reopen();
    fake.until("reopened", |state| state.files.len() > 1);
    fake.set(|state| state.room = None);
    assert!(access.shutdown(LONG));
    assert_eq!(ids(&fake.file(0)[..2 * line]), ["a", "b"]);
    let files = fake.0.0.lock().unwrap().files.len();
    let later: String = (1..files).map(|number| fake.file(number)).collect();
    assert_eq!(ids(&later), ["c"]);
}

#[test]
fn shutdown_ends_although_the_file_does_not_work() {
    let fake = Fake::default();
    fake.set(|state| state.stalls = true);
    let access = start(&fake);
    log(&access, "a");
    assert!(!access.shutdown(Duration::from_millis(20)));
    fake.set(|state| state.stalls = false);

    let fake = Fake::default();
    fake.set(|state| state.room = Some(0));
    let access = start(&fake);
    ["a", "b"].iter().for_each(|id| log(&access, id));
    fake.until("tried", |state| state.reopened > 0);
    assert!(!access.shutdown(Duration::from_millis(200)));
    // It may still be about to count them when the wait is over.
    access.buffers.wait_for_end(Instant::now() + LONG);
    assert_eq!(access.stats().dropped, 2);
}

#[test]
fn records_after_the_end_are_counted() {
    let fake = Fake::default();
    let access = start(&fake);
    log(&access, "a");
    assert!(access.shutdown(LONG));
    log(&access, "late");
    assert_eq!((access.stats().written, access.stats().dropped), (1, 1));
    assert!(access.shutdown(LONG), "a second time does nothing");
}

#[test]
fn a_log_that_is_dropped_writes_what_it_holds() {
    let fake = Fake::default();
    let access = start(&fake);
    log(&access, "a");
    drop(access);
    fake.until("written", |state| state.files.first().is_some_and(|file| file.ends_with(b"\n")));
}

#[test]
fn rotation_puts_later_records_into_the_new_file() {
    let directory = Directory::new();
    let (path, old) = (directory.0.join("access.log"), directory.0.join("access.log.1"));
    let access = start_file(&path);
    log(&access, "before");
    std::fs::rename(&path, &old).unwrap();
    access.reopen();
    log(&access, "after");
    assert!(access.shutdown(LONG));
    // What was logged before may be in either: it had not been written yet, perhaps.
    let (mut all, new) = (read(&old), read(&path));
    assert!(new.contains(&"after".to_owned()));
    all.extend(new);
    assert_eq!(all, ["before", "after"]);
}

#[test]
fn where_reopening_fails_the_old_file_goes_on_until_it_succeeds() {
    let fake = Fake::default();
    fake.set(|state| (state.refuses_reopening, state.moves) = (true, true));
    let access = start(&fake);
    access.reopen();
    fake.until("tried more than once", |state| state.reopened > 1);
    log(&access, "a");
    fake.until("written", |state| state.files.first().is_some_and(|file| file.ends_with(b"\n")));
    fake.set(|state| state.refuses_reopening = false);
    fake.until("opened", |state| state.files.len() == 2);
    log(&access, "b");
    assert!(access.shutdown(LONG));
    assert_eq!((ids(&fake.file(0)), ids(&fake.file(1))), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(access.stats().dropped, 0);
}

#[test]
fn a_directory_that_is_gone_is_made_again() {
    let directory = Directory::new();
    let path = directory.0.join("logs/access.log");
    let access = start_file(&path);
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    access.reopen();
    log(&access, "a");
    assert!(access.shutdown(LONG));
    assert_eq!(read(&path), ["a"]);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
    let directory = Directory::new();
    let config = model::AccessLog { path: LogPath::File(directory.0.clone()), format: LogFormat::Json };
    assert!(AccessLog::start(&config).is_err());
}

/// A real device that is always full.
#[test]
fn a_real_full_disk() {
    let access = start_file(Path::new("/dev/full"));
    log(&access, "a");
    assert!(!access.shutdown(Duration::from_millis(500)));
    access.buffers.wait_for_end(Instant::now() + LONG);
    let stats = access.stats();
    assert!(stats.errors > 0 && stats.written == 0 && stats.dropped == 1, "{stats:?}");
}

#[test]
fn a_scrape_sees_what_became_of_the_records() {
    let fake = Fake::default();
    let access = Arc::new(start(&fake));
    let metrics = crate::observe::metrics::Metrics::new();
    let sampled = Arc::clone(&access);
    metrics.register(move |out: &mut Samples| sampled.sample(out));
    log(&access, "a");
    assert!(access.shutdown(LONG));
    log(&access, "late");
    let text = String::from_utf8(metrics.render()).unwrap();
    for line in ["records_written_total 1", "records_dropped_total 1", "errors_total 0"] {
        assert!(text.contains(&format!("\nforeland_access_log_{line}\n")), "{line} in {text}");
    }
}

/// `cargo test --release -- --ignored --nocapture cost_of_a_record`
#[test]
#[ignore = "measures, asserts nothing"]
fn cost_of_a_record() {
    const RECORDS: u32 = 2_000_000;
    let config = model::AccessLog { path: LogPath::File("/dev/null".into()), format: LogFormat::Json };
    let access = AccessLog::start(&config).unwrap();
    let record = Record {
        time: std::time::SystemTime::now(),
        client: Some([192, 0, 2, 10].into()),
        method: b"GET",
        host: Some(b"cdn.example.com"),
        uri: b"/assets/2024/images/a-picture-of-something.jpg?width=1200&format=webp",
        protocol: "HTTP/1.1",
        status: 200,
        bytes: 48_213,
        duration: Duration::from_micros(183),
        first_byte: Some(Duration::from_micros(91)),
        cache: "hit",
        tier: Some("memory"),
        site: Some("cdn"),
        route: Some("routes[1]"),
        request_id: Some("8f14e45fceea167a5a36dedd4bea2543"),
        referer: Some(b"https://www.example.com/articles/2024/a-long-title"),
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0"),
        ..Record::default()
    };
    let start = Instant::now();
    (0..RECORDS).for_each(|_| access.log(&record));
    println!("{} ns a record, {:?}", start.elapsed().as_nanos() / u128::from(RECORDS), access.stats());
}
