//! The figures of one origin.

use std::time::Duration;

use super::cells::{Counter, Distribution, Durations, Sharded};
use super::samples::Samples;
use super::{STATUS_CLASSES, status_class, table};

/// Why a try on a server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection was refused, or its way is closed.
    Connect,
    ConnectTimeout,
    /// The TLS handshake failed: a certificate, a version, a cipher.
    Tls,
    /// The server was silent for too long while the edge wrote or read.
    Timeout,
    /// The connection ended before the answer did.
    Reset,
    /// What the server sent is not HTTP.
    Protocol,
    /// The status itself counts as a failure.
    Status,
    /// There was no server to try: all are unhealthy or drained.
    Unavailable,
    /// All servers had as many requests as they may.
    Overloaded,
    Other,
}

impl Failure {
    pub const ALL: [Failure; 10] = [
        Failure::Connect,
        Failure::ConnectTimeout,
        Failure::Tls,
        Failure::Timeout,
        Failure::Reset,
        Failure::Protocol,
        Failure::Status,
        Failure::Unavailable,
        Failure::Overloaded,
        Failure::Other,
    ];

    /// The value of the label `kind`.
    pub fn word(self) -> &'static str {
        match self {
            Failure::Connect => "connect",
            Failure::ConnectTimeout => "connect_timeout",
            Failure::Tls => "tls",
            Failure::Timeout => "timeout",
            Failure::Reset => "reset",
            Failure::Protocol => "protocol",
            Failure::Status => "status",
            Failure::Unavailable => "unavailable",
            Failure::Overloaded => "overloaded",
            Failure::Other => "other",
        }
    }
}

/// The handles of one origin: resolved when a configuration is loaded, so that a request looks nothing up.
#[derive(Debug)]
pub struct OriginMetrics {
    name: String,
    cells: Sharded<Cells>,
}

#[derive(Debug, Default)]
struct Cells {
    answers: [Counter; STATUS_CLASSES.len()],
    bytes: Counter,
    connect: Durations,
    first_byte: Durations,
    opened: Counter,
    reused: Counter,
    retries: Counter,
    hedges: Counter,
    unaffordable: Counter,
    failures: [Counter; Failure::ALL.len()],
}

impl OriginMetrics {
    pub(super) fn new(name: &str) -> OriginMetrics {
        OriginMetrics { name: name.to_owned(), cells: Sharded::new() }
    }

    /// The value of the label `origin`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A new connection was opened, and took this long.
    pub fn opened(&self, took: Duration) {
        let cells = self.cells.mine();
        cells.opened.add(1);
        cells.connect.observe(took);
    }

    /// A kept connection was used again.
    pub fn reused(&self) {
        self.cells.mine().reused.add(1);
    }

    /// The header section of an answer arrived, this long after the request was sent.
    pub fn answered(&self, status: u16, first_byte: Duration) {
        let cells = self.cells.mine();
        cells.answers[status_class(status)].add(1);
        cells.first_byte.observe(first_byte);
    }

    /// Some of a response's body arrived.
    pub fn received(&self, bytes: u64) {
        self.cells.mine().bytes.add(bytes);
    }

    /// A try failed.
    pub fn failed(&self, failure: Failure) {
        self.cells.mine().failures[failure as usize].add(1);
    }

    /// A request is tried again.
    pub fn retried(&self) {
        self.cells.mine().retries.add(1);
    }

    /// A request is sent to a second server, since the first takes its time.
    pub fn hedged(&self) {
        self.cells.mine().hedges.add(1);
    }

    /// A request would have been tried again, but the budget is spent.
    pub fn unaffordable(&self) {
        self.cells.mine().unaffordable.add(1);
    }

    pub(super) fn collect(&self, out: &mut Samples) {
        let origin = self.name.as_str();
        for (class, status) in STATUS_CLASSES.iter().enumerate() {
            let answers = self.cells.sum(|cells| cells.answers[class].value());
            if answers > 0 {
                out.set(&table::ORIGIN_REQUESTS, &[origin, status], answers as f64);
            }
        }
        // Every kind of failure is there from the beginning: an alert on a rate needs the zero before the first one.
        for failure in Failure::ALL {
            let failures = self.cells.sum(|cells| cells.failures[failure as usize].value());
            out.set(&table::ORIGIN_FAILURES, &[origin, failure.word()], failures as f64);
        }
        let sum = |figure: fn(&Cells) -> &Counter| self.cells.sum(|cells| figure(cells).value()) as f64;
        out.set(&table::ORIGIN_BYTES, &[origin], sum(|cells| &cells.bytes));
        out.set(&table::ORIGIN_RETRIES, &[origin], sum(|cells| &cells.retries));
        out.set(&table::ORIGIN_RETRIES_REFUSED, &[origin], sum(|cells| &cells.unaffordable));
        out.set(&table::ORIGIN_HEDGES, &[origin], sum(|cells| &cells.hedges));
        out.set(&table::ORIGIN_CONNECTIONS, &[origin, "opened"], sum(|cells| &cells.opened));
        out.set(&table::ORIGIN_CONNECTIONS, &[origin, "reused"], sum(|cells| &cells.reused));
        out.durations(&table::ORIGIN_CONNECT, &[origin], Distribution::of(&self.cells, |cells| &cells.connect));
        out.durations(&table::ORIGIN_FIRST_BYTE, &[origin], Distribution::of(&self.cells, |cells| &cells.first_byte));
    }
}
