//! Why no server could be chosen.

use std::fmt;
use std::time::Duration;

/// Why there is no server for a request. Its text says so of "the origin's servers".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoServer {
    /// Names have not been resolved, lists are empty.
    Unresolved,
    /// There are servers, and none of them takes new requests.
    Unusable { unhealthy: usize, drained: usize, weightless: usize },
    /// This request has tried all that could take it.
    Tried,
    /// Each that could take it has as many requests in flight as it may.
    Full,
    /// The same, and as many requests as may wait for a place do so.
    QueueFull,
    /// The same, and it has waited for a place for so long.
    WaitedTooLong(Duration),
}

impl NoServer {
    /// Servers are there, and have all that they may: the circuit is open.
    pub fn is_overload(self) -> bool {
        matches!(self, NoServer::Full | NoServer::QueueFull | NoServer::WaitedTooLong(_))
    }
}

impl fmt::Display for NoServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoServer::Unresolved => write!(f, "none of its servers has an address"),
            NoServer::Unusable { unhealthy, drained, weightless } => {
                let why = [("unhealthy", unhealthy), ("drained", drained), ("of weight 0", weightless)];
                let mut why = why.into_iter().filter(|(_, count)| **count > 0);
                match (why.next(), why.next(), why.next()) {
                    (Some((one, _)), None, _) => write!(f, "all of its servers are {one}"),
                    (Some((a, m)), Some((b, n)), None) => write!(f, "of its servers {m} are {a} and {n} {b}"),
                    (Some((a, m)), Some((b, n)), Some((c, o))) => {
                        write!(f, "of its servers {m} are {a}, {n} {b} and {o} {c}")
                    }
                    (None, _, _) => write!(f, "it has no servers"),
                }
            }
            NoServer::Tried => write!(f, "all of its servers that can be asked have been"),
            NoServer::Full => write!(f, "each of its servers has as many requests as it may"),
            NoServer::QueueFull => {
                write!(f, "each of its servers has as many requests as it may, and as many wait as may")
            }
            NoServer::WaitedTooLong(time) => {
                write!(f, "each of its servers had as many requests as it may for {time:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_in_a_sentence() {
        let unusable = |unhealthy, drained, weightless| NoServer::Unusable { unhealthy, drained, weightless };
        let cases = [
            (unusable(2, 0, 0), "all of its servers are unhealthy"),
            (unusable(0, 0, 1), "all of its servers are of weight 0"),
            (unusable(0, 1, 2), "of its servers 1 are drained and 2 of weight 0"),
            (unusable(3, 1, 2), "of its servers 3 are unhealthy, 1 drained and 2 of weight 0"),
            (NoServer::Unresolved, "none of its servers has an address"),
            (
                NoServer::WaitedTooLong(Duration::from_millis(1500)),
                "each of its servers had as many requests as it may for 1.5s",
            ),
        ];
        for (reason, sentence) in cases {
            assert_eq!(reason.to_string(), sentence);
        }
    }
}
