//! What a server's requests have come to, counted for whoever scrapes.

use std::sync::OnceLock;
use std::time::Duration;

use super::failure::FailureKind;
use super::health::{Outcome, TryResult};
use crate::observe::{Counter, Distribution, Durations, STATUS_CLASSES, Sharded, status_class};

/// Counts of one server, which many threads add to without waiting for each other.
///
/// There is nothing but a pointer before the first try: a list may have thousands of servers, and an edge asks few of
/// them.
#[derive(Debug, Default)]
pub(super) struct Figures(OnceLock<Sharded<Cells>>);

#[derive(Debug, Default)]
struct Cells {
    answers: [Counter; STATUS_CLASSES.len()],
    failures: [Counter; FailureKind::ALL.len()],
    first_byte: Durations,
}

impl Figures {
    /// Notes what became of one try of a request.
    pub(super) fn record(&self, outcome: &Outcome) {
        match outcome.result {
            TryResult::Answered(status) => self.answered(status, outcome.latency),
            TryResult::Failed(kind) => self.failed(kind),
        }
    }

    /// What there is so far. Tries that end meanwhile may be in some of the figures and not in others.
    pub(super) fn tally(&self) -> Tally {
        let Some(cells) = self.0.get() else { return Tally::default() };
        Tally {
            answers: std::array::from_fn(|class| cells.sum(|cells| cells.answers[class].value())),
            failures: std::array::from_fn(|kind| cells.sum(|cells| cells.failures[kind].value())),
            first_byte: Distribution::of(cells, |cells| &cells.first_byte),
        }
    }

    /// The header section of an answer came so long after the server was chosen.
    fn answered(&self, status: u16, latency: Duration) {
        let cells = self.mine();
        // Both indices are below the lengths of what they look into, by the types' own constants.
        cells.answers[status_class(status)].add(1);
        cells.first_byte.observe(latency);
    }

    /// No answer came.
    fn failed(&self, kind: FailureKind) {
        self.mine().failures[kind as usize].add(1);
    }

    fn mine(&self) -> &Cells {
        self.0.get_or_init(Sharded::default).mine()
    }
}

/// What a server's requests have come to, as of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    answers: [u64; STATUS_CLASSES.len()],
    failures: [u64; FailureKind::ALL.len()],
    /// Times from the choice of the server to its answer's header section.
    pub first_byte: Distribution,
}

impl Tally {
    /// Answers by the class of their status (`2xx`): of those classes that there have been.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STATUS_CLASSES.into_iter().zip(self.answers).filter(|(_, count)| *count > 0)
    }

    /// Tries without an answer, by kind: of every kind. That a status counts as a failure is none of them, since it is an
    /// answer.
    pub fn failures(&self) -> impl Iterator<Item = (FailureKind, u64)> {
        FailureKind::ALL.into_iter().zip(self.failures).filter(|(kind, _)| *kind != FailureKind::Status)
    }
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            answers: Default::default(),
            failures: Default::default(),
            first_byte: Distribution::of(&Sharded::<Durations>::default(), |none| none),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, millis: u64) -> Outcome {
        Outcome { result: TryResult::Answered(status), latency: Duration::from_millis(millis) }
    }

    fn failed(kind: FailureKind) -> Outcome {
        Outcome { result: TryResult::Failed(kind), latency: Duration::from_millis(5) }
    }

    #[test]
    fn an_answer_counts_by_its_class_and_by_its_time() {
        let figures = Figures::default();
        for outcome in [answered(200, 2), answered(299, 200), answered(503, 20)] {
            figures.record(&outcome);
        }
        let tally = figures.tally();
        assert_eq!(tally.answers().collect::<Vec<_>>(), [("2xx", 2), ("5xx", 1)]);
        assert!(tally.failures().all(|(_, count)| count == 0));
        assert_eq!(tally.first_byte.count, 3);
        assert!((tally.first_byte.seconds - 0.222).abs() < 1e-9, "{}", tally.first_byte.seconds);
        assert_eq!(tally.first_byte.cumulative, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn each_kind_of_failure_has_its_count_and_no_time() {
        let figures = Figures::default();
        for (n, kind) in (1..).zip(FailureKind::ALL) {
            (0..n).for_each(|_| figures.record(&failed(kind)));
        }
        let tally = figures.tally();
        let counted: Vec<_> = tally.failures().map(|(kind, count)| (kind.as_str(), count)).collect();
        let expected = [
            ("connect", 1),
            ("connect_timeout", 2),
            ("tls", 3),
            ("timeout", 4),
            ("reset", 5),
            ("protocol", 6),
            ("other", 8),
        ];
        assert_eq!(counted, expected);
        assert_eq!((tally.answers().count(), tally.first_byte.count), (0, 0));
    }

    #[test]
    fn before_the_first_try_all_is_zero_and_has_its_bounds() {
        let (none, mut one) = (Figures::default().tally(), Figures::default());
        assert_eq!(none, Tally::default());
        one.record(&answered(200, 1));
        let mut both = one.tally().first_byte;
        both.merge(&none.first_byte);
        assert_eq!(both, one.tally().first_byte);
        assert!(one.0.take().is_some());
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let figures = Figures::default();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let outcome = if n % 2 == 0 { answered(200, 1) } else { failed(FailureKind::Reset) };
                let figures = &figures;
                scope.spawn(move || (0..1_000).for_each(|_| figures.record(&outcome)));
            }
        });
        let tally = figures.tally();
        assert_eq!(tally.answers().collect::<Vec<_>>(), [("2xx", 4_000)]);
        let resets = tally.failures().find(|(kind, _)| *kind == FailureKind::Reset).map(|(_, count)| count);
        assert_eq!((resets, tally.first_byte.count), (Some(4_000), 4_000));
    }
}
