//! How a disk fares: its errors counted by cause, and whether it is written to and read from at all.
//!
//! Pure: the time is an argument, and what is to be logged is returned. While the disk is well, asking costs one atomic
//! load.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time until the first probe of a suspension; each that fails doubles it, up to [`LAST_BACKOFF`].
pub const FIRST_BACKOFF: Duration = Duration::from_secs(1);
pub const LAST_BACKOFF: Duration = Duration::from_secs(30);

/// So many reads in a row have to fail: one bad sector is no reason to give up all else that is stored. One that does not
/// answer in time is, for each further one would cost a request that time.
pub const READ_ERRORS: u32 = 8;

/// A disk that fails again before this time of health is probed as late as it was before; of an error that suspends
/// nothing the log hears again once it has not come for so long.
const STEADY: Duration = Duration::from_secs(60);

/// What was asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Remove,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Read, Kind::Write, Kind::Remove];

    /// For a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Remove => "remove",
        }
    }
}

/// Why it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No space or no quota left.
    Full,
    /// The file system is mounted read-only, as Linux does by itself after errors.
    ReadOnly,
    Permission,
    /// The folder or its device is gone.
    Missing,
    /// No file can be opened: the limit of the process or of the system is reached.
    Files,
    /// The disk's own errors, and all that have no other name.
    Io,
    /// No answer in time.
    Slow,
}

impl Cause {
    pub const ALL: [Cause; 7] =
        [Cause::Full, Cause::ReadOnly, Cause::Permission, Cause::Missing, Cause::Files, Cause::Io, Cause::Slow];

    /// By the system's number where there is one, else by the kind of error.
    pub fn of(error: &io::Error) -> Cause {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Cause::Full,
            Some(libc::EROFS) => Cause::ReadOnly,
            Some(libc::EACCES | libc::EPERM) => Cause::Permission,
            Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ENXIO | libc::ESTALE) => Cause::Missing,
            Some(libc::EMFILE | libc::ENFILE) => Cause::Files,
            Some(libc::ETIMEDOUT) => Cause::Slow,
            Some(_) => Cause::Io,
            None => match error.kind() {
                io::ErrorKind::TimedOut => Cause::Slow,
                io::ErrorKind::NotFound => Cause::Missing,
                io::ErrorKind::PermissionDenied => Cause::Permission,
                _ => Cause::Io,
            },
        }
    }

    /// For a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Full => "full",
            Cause::ReadOnly => "read_only",
            Cause::Permission => "permission",
            Cause::Missing => "missing",
            Cause::Files => "files",
            Cause::Io => "io",
            Cause::Slow => "slow",
        }
    }

    /// In the words of a log line.
    fn reason(self) -> &'static str {
        match self {
            Cause::Full => "it is full",
            Cause::ReadOnly => "it is read-only",
            Cause::Permission => "permission is denied",
            Cause::Missing => "it is gone",
            Cause::Files => "no file can be opened",
            Cause::Io => "it fails",
            Cause::Slow => "it does not answer in time",
        }
    }

    /// Whether the next operation would fail too.
    fn repeats(self, kind: Kind) -> bool {
        match kind {
            Kind::Read => matches!(self, Cause::Io | Cause::Slow | Cause::Permission | Cause::Missing),
            Kind::Write => !matches!(self, Cause::Files | Cause::Slow),
            // What cannot be removed leaves no room for what would be written; a single file with a will of its own
            // does not matter as much.
            Kind::Remove => matches!(self, Cause::ReadOnly | Cause::Io),
        }
    }
}

/// What is to be logged, in one line behind the disk's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// A suspension begins. `kind` is never `Remove`, which is suspended with writing.
    Suspended { kind: Kind, cause: Cause },
    /// It ends, `after` that time and that many errors.
    Resumed { kind: Kind, cause: Cause, after: Duration, errors: u64 },
    /// An error that suspends nothing, and that has not been for a minute.
    Noted { kind: Kind, cause: Cause },
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = |kind: Kind| if kind == Kind::Read { "reading from" } else { "writing to" };
        match *self {
            Transition::Suspended { kind, cause } => {
                write!(f, "{} the disk is suspended: {}", doing(kind), cause.reason())
            }
            Transition::Resumed { kind, cause, after, errors } => {
                let (doing, cause, s) = (doing(kind), cause.as_str(), if errors == 1 { "" } else { "s" });
                write!(f, "{doing} the disk is resumed after {} s and {errors} error{s} ({cause})", after.as_secs())
            }
            Transition::Noted { kind, cause } => {
                write!(f, "the disk failed to {}: {}", kind.as_str(), cause.reason())
            }
        }
    }
}

/// The health of one disk.
#[derive(Default)]
pub struct Health {
    reading: Way,
    writing: Way,
    /// The reads in a row that have failed.
    streak: AtomicU32,
    counts: [[AtomicU64; Cause::ALL.len()]; Kind::ALL.len()],
    /// When each error that suspends nothing last came.
    noted: Mutex<[[Option<Instant>; Cause::ALL.len()]; Kind::ALL.len()]>,
}

impl Health {
    /// Whether the disk is written to: false from an error that the next write would meet too, until a probe has
    /// worked.
    pub fn may_write(&self) -> bool {
        !self.writing.suspended.load(Ordering::Relaxed)
    }

    /// Whether the disk is read from: false after [`READ_ERRORS`] in a row, until a probe has worked.
    pub fn may_read(&self) -> bool {
        !self.reading.suspended.load(Ordering::Relaxed)
    }

    /// Counts an error and draws its consequences. That a file is not there is no error but a miss, or nothing to
    /// remove, and is not for here.
    pub fn on_error(&self, kind: Kind, error: &io::Error, now: Instant) -> Option<Transition> {
        let cause = Cause::of(error);
        self.counts[kind as usize][cause as usize].fetch_add(1, Ordering::Relaxed);
        if !cause.repeats(kind) {
            return self.note(kind, cause, now);
        }
        let may = match kind {
            Kind::Read => {
                let streak = self.streak.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                // Nobody else should wait as long as the first one has.
                streak >= READ_ERRORS || cause == Cause::Slow
            }
            Kind::Write | Kind::Remove => true,
        };
        self.way(kind).error(may, cause, now).then(|| Transition::Suspended { kind: way_of(kind), cause })
    }

    /// A read has worked: the row of those that have failed ends.
    pub fn read_ok(&self) {
        if self.streak.load(Ordering::Relaxed) != 0 {
            self.streak.store(0, Ordering::Relaxed);
        }
    }

    /// Whether it is time to probe what is suspended (`Read`, or else writing). True for one caller each time, who
    /// then tries it on the disk and says with [`Health::probed`] how it went; if he never does, the next may.
    pub fn probe_due(&self, kind: Kind, now: Instant) -> bool {
        self.way(kind).probe_due(now)
    }

    /// How a probe went.
    pub fn probed(&self, kind: Kind, result: Result<(), &io::Error>, now: Instant) -> Option<Transition> {
        let kind = way_of(kind);
        match result {
            Err(error) => {
                let cause = Cause::of(error);
                self.counts[kind as usize][cause as usize].fetch_add(1, Ordering::Relaxed);
                self.way(kind).still(cause, now);
                None
            }
            Ok(()) => {
                if kind == Kind::Read {
                    self.streak.store(0, Ordering::Relaxed);
                }
                let ended = self.way(kind).resume(now)?;
                let after = now.saturating_duration_since(ended.since);
                Some(Transition::Resumed { kind, cause: ended.cause, after, errors: ended.errors })
            }
        }
    }

    /// Why reading (`Read`) or else writing is suspended; `None` where it is not.
    pub fn suspended(&self, kind: Kind) -> Option<Cause> {
        self.way(kind).state().suspension.as_ref().map(|suspension| suspension.cause)
    }

    /// How many errors there have been.
    pub fn errors(&self, kind: Kind, cause: Cause) -> u64 {
        self.counts[kind as usize][cause as usize].load(Ordering::Relaxed)
    }

    fn way(&self, kind: Kind) -> &Way {
        if kind == Kind::Read { &self.reading } else { &self.writing }
    }

    fn note(&self, kind: Kind, cause: Cause, now: Instant) -> Option<Transition> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let last = noted[kind as usize][cause as usize].replace(now);
        let quiet = last.is_none_or(|last| now.saturating_duration_since(last) >= STEADY);
        quiet.then_some(Transition::Noted { kind, cause })
    }
}

fn way_of(kind: Kind) -> Kind {
    if kind == Kind::Read { Kind::Read } else { Kind::Write }
}

/// Reading or writing, which are suspended apart from each other: a disk that is full can still be read.
#[derive(Default)]
struct Way {
    /// The same as whether there is a suspension, for those who only ask.
    suspended: AtomicBool,
    state: Mutex<WayState>,
}

#[derive(Default)]
struct WayState {
    suspension: Option<Suspension>,
    /// When the last one ended, and how late its last probe was.
    last: Option<(Instant, Duration)>,
}

struct Suspension {
    cause: Cause,
    since: Instant,
    errors: u64,
    probe_at: Instant,
    backoff: Duration,
}

impl Way {
    /// True where the suspension begins with it.
    fn error(&self, may_suspend: bool, cause: Cause, now: Instant) -> bool {
        let mut state = self.state();
        if let Some(suspension) = &mut state.suspension {
            suspension.errors = suspension.errors.saturating_add(1);
            return false;
        }
        if !may_suspend {
            return false;
        }
        let backoff = match state.last {
            Some((ended, backoff)) if now.saturating_duration_since(ended) < STEADY => doubled(backoff),
            _ => FIRST_BACKOFF,
        };
        state.suspension = Some(Suspension { cause, since: now, errors: 1, probe_at: now + backoff, backoff });
        self.suspended.store(true, Ordering::Relaxed);
        true
    }

    fn probe_due(&self, now: Instant) -> bool {
        if !self.suspended.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.state();
        let Some(suspension) = state.suspension.as_mut().filter(|suspension| now >= suspension.probe_at) else {
            return false;
        };
        // Whoever has taken it may never say how it went.
        suspension.probe_at = now + suspension.backoff;
        true
    }

    fn still(&self, cause: Cause, now: Instant) {
        if let Some(suspension) = &mut self.state().suspension {
            suspension.cause = cause;
            suspension.errors = suspension.errors.saturating_add(1);
            suspension.backoff = doubled(suspension.backoff);
            suspension.probe_at = now + suspension.backoff;
        }
    }

    fn resume(&self, now: Instant) -> Option<Suspension> {
        let mut state = self.state();
        let ended = state.suspension.take()?;
        state.last = Some((now, ended.backoff));
        self.suspended.store(false, Ordering::Relaxed);
        Some(ended)
    }

    fn state(&self) -> MutexGuard<'_, WayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn doubled(backoff: Duration) -> Duration {
    (backoff * 2).min(LAST_BACKOFF)
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
