//! What has become of the handshakes.

use std::sync::atomic::{AtomicU64, Ordering};

use rustls::HandshakeKind;

use super::handshake::Failure;

/// Handshakes since the process began.
#[derive(Debug, Default)]
pub struct Counts {
    done: [[AtomicU64; 2]; 2],
    failed: [AtomicU64; Failure::REASONS.len()],
}

/// The versions that are counted.
const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];
const KINDS: [&str; 2] = ["full", "resumed"];

impl Counts {
    /// A handshake has come to its end. `version`: as [`super::Failure`] and the log have it.
    pub fn done(&self, version: &str, kind: Option<HandshakeKind>) {
        let version = usize::from(version != VERSIONS[0]);
        let kind = usize::from(kind == Some(HandshakeKind::Resumed));
        self.done[version][kind].fetch_add(1, Ordering::Relaxed);
    }

    pub fn failed(&self, failure: &Failure) {
        let index = Failure::REASONS.iter().position(|reason| *reason == failure.reason());
        if let Some(counter) = index.and_then(|index| self.failed.get(index)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// By version and kind (`full`, `resumed`).
    pub fn by_kind(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        VERSIONS.iter().zip(&self.done).flat_map(|(version, kinds)| {
            KINDS.iter().zip(kinds).map(move |(kind, count)| (*version, *kind, count.load(Ordering::Relaxed)))
        })
    }

    /// By [`Failure::reason`].
    pub fn by_failure(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Failure::REASONS.iter().zip(&self.failed).map(|(reason, count)| (*reason, count.load(Ordering::Relaxed)))
    }
}
