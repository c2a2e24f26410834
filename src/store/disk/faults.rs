//! Faults for tests, below the seam of the disk's I/O. In a release build nothing of it is left.
//!
//! `FORELAND_DISK_FAULTS` names a file of lines `OP ACTION [PATH]`, which is read again at each operation, so that a
//! test makes a disk fail and heal by writing it. Empty lines and those that begin with `#` say nothing; any other
//! that cannot be read fails each operation, so that a slip in a test does not pass for health.
//!
//! * `OP`: `open`, `create`, `read`, `write`, `unlink`, `publish` (or `rename`), `stat`, `readdir`, `mkdir`, `sync`,
//!   `lock`, `statfs`, or `any`. To make a file shorter is to `write`; a folder is synced like a file.
//! * `ACTION`: the name of an error (`ENOSPC`, `EDQUOT`, `EIO`, `EROFS`, `EACCES`, `EPERM`, `ENOENT`, `EMFILE`);
//!   `delay=200ms`; `hang`, which lasts until the line is gone; `corrupt`, which flips a bit in what is read;
//!   `nowait`, which has nothing in the page cache, so that every read goes to the pool.
//! * `PATH`: only for disks at or below it.
//!
//! All lines that apply are done in their order, the first error ends it. As on a real disk, what is read in place
//! comes from the page cache: a line that delays, hangs or fails `read` is met on the pool, never on a worker.

pub use imp::Faults;

/// What is asked of the disk, in the file's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Open,
    Create,
    Read,
    Write,
    Unlink,
    /// Of a file that is made visible, and of any other renaming.
    Publish,
    Stat,
    ReadDir,
    MakeDir,
    Sync,
    /// Waiting for a file's lock.
    Lock,
    FreeSpace,
}

#[cfg(not(debug_assertions))]
mod imp {
    use std::io;
    use std::path::Path;

    use super::Op;

    /// No faults.
    pub struct Faults;

    impl Faults {
        pub fn of(_root: &Path) -> Faults {
            Faults
        }

        #[inline(always)]
        pub fn before(&self, _op: Op) -> io::Result<()> {
            Ok(())
        }

        #[inline(always)]
        pub fn nothing_cached(&self) -> bool {
            false
        }

        #[inline(always)]
        pub fn corrupt(&self, _read: &mut [u8]) {}
    }
}

#[cfg(debug_assertions)]
mod imp {
    use std::path::{Path, PathBuf};
    use std::time::Duration;
    use std::{fs, io};

    use rustix::io::Errno;

    use super::Op;

    const VARIABLE: &str = "FORELAND_DISK_FAULTS";

    /// How often it is seen whether a line that hangs is gone.
    const POLL: Duration = Duration::from_millis(10);

    /// The faults of one disk.
    pub struct Faults {
        /// `None` where the process has been given no file.
        file: Option<PathBuf>,
        root: PathBuf,
    }

    impl Faults {
        /// Those that the environment names, for the disk whose folder that is.
        pub fn of(root: &Path) -> Faults {
            Faults { file: std::env::var_os(VARIABLE).map(PathBuf::from), root: root.to_owned() }
        }

        /// Those of that file.
        #[cfg(test)]
        pub fn in_file(file: &Path, root: &Path) -> Faults {
            Faults { file: Some(file.to_owned()), root: root.to_owned() }
        }

        /// What befalls that operation: it may take its time, or fail.
        pub fn before(&self, op: Op) -> io::Result<()> {
            for action in self.actions(op)? {
                match action {
                    Action::Fail(errno) => return Err(errno.into()),
                    Action::Delay(time) => sleep(time),
                    Action::Hang => {
                        while self.actions(op)?.contains(&Action::Hang) {
                            sleep(POLL);
                        }
                    }
                    Action::Corrupt | Action::NoWait => {}
                }
            }
            Ok(())
        }

        /// Whether the page cache is to hold nothing.
        pub fn nothing_cached(&self) -> bool {
            self.actions(Op::Read).map_or(true, |actions| actions.iter().any(|action| *action != Action::Corrupt))
        }

        /// Flips a bit of what has been read.
        pub fn corrupt(&self, read: &mut [u8]) {
            let corrupt = self.actions(Op::Read).is_ok_and(|actions| actions.contains(&Action::Corrupt));
            let middle = read.len() / 2;
            if let (true, Some(byte)) = (corrupt, read.get_mut(middle)) {
                *byte ^= 1;
            }
        }

        fn actions(&self, op: Op) -> io::Result<Vec<Action>> {
            let Some(file) = &self.file else { return Ok(Vec::new()) };
            // A file that is not there has no lines.
            let text = fs::read_to_string(file).unwrap_or_default();
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let mut actions = Vec::new();
            for line in lines {
                let fault = Fault::parse(line).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: not a fault: {line}", file.display()))
                })?;
                if fault.op.is_none_or(|its| its == op) && fault.below.is_none_or(|path| self.root.starts_with(path)) {
                    actions.push(fault.action);
                }
            }
            Ok(actions)
        }
    }

    /// A line of the file.
    struct Fault<'a> {
        /// `None` for any.
        op: Option<Op>,
        action: Action,
        below: Option<&'a Path>,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Action {
        Fail(Errno),
        Delay(Duration),
        Hang,
        Corrupt,
        NoWait,
    }

    impl Fault<'_> {
        fn parse(line: &str) -> Option<Fault<'_>> {
            let (op, rest) = line.split_once(char::is_whitespace)?;
            let rest = rest.trim_start();
            let (action, path) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let (op, action) = (op_named(op)?, Action::parse(action)?);
            // The two concern reads alone: beside another word they would do nothing.
            if matches!(action, Action::Corrupt | Action::NoWait) && op.is_some_and(|op| op != Op::Read) {
                return None;
            }
            let path = path.trim();
            Some(Fault { op, action, below: (!path.is_empty()).then(|| Path::new(path)) })
        }
    }

    impl Action {
        fn parse(word: &str) -> Option<Action> {
            if let Some(time) = word.strip_prefix("delay=") {
                return Some(Action::Delay(Duration::from_millis(time.strip_suffix("ms")?.parse().ok()?)));
            }
            Some(match word {
                "ENOSPC" => Action::Fail(Errno::NOSPC),
                "EDQUOT" => Action::Fail(Errno::DQUOT),
                "EIO" => Action::Fail(Errno::IO),
                "EROFS" => Action::Fail(Errno::ROFS),
                "EACCES" => Action::Fail(Errno::ACCESS),
                "EPERM" => Action::Fail(Errno::PERM),
                "ENOENT" => Action::Fail(Errno::NOENT),
                "EMFILE" => Action::Fail(Errno::MFILE),
                "hang" => Action::Hang,
                "corrupt" => Action::Corrupt,
                "nowait" => Action::NoWait,
                _ => return None,
            })
        }
    }

    /// `Some(None)` for any.
    fn op_named(word: &str) -> Option<Option<Op>> {
        Some(Some(match word {
            "any" => return Some(None),
            "open" => Op::Open,
            "create" => Op::Create,
            "read" => Op::Read,
            "write" => Op::Write,
            "unlink" => Op::Unlink,
            "publish" | "rename" => Op::Publish,
            "stat" => Op::Stat,
            "readdir" => Op::ReadDir,
            "mkdir" => Op::MakeDir,
            "sync" => Op::Sync,
            "lock" => Op::Lock,
            "statfs" => Op::FreeSpace,
            _ => return None,
        }))
    }

    // It stands for a disk that is slow; the callers are the threads of the pool.
    #[allow(clippy::disallowed_methods)]
    fn sleep(time: Duration) {
        std::thread::sleep(time);
    }
}

#[cfg(test)]
#[path = "faults_tests.rs"]
mod tests;
