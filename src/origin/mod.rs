//! Where responses come from: pools of servers, balancing, health, and the resolving of their names.
//!
//! The pool is our own and not pingora-load-balancing's, which keeps health out of its rotation (the shares skew while
//! a server is down), resets a server's health with its weight, counts no requests and rediscovers on one fixed
//! interval. Here a server's state outlives reloads and DNS answers, and every name follows its own TTL.

mod balance;
mod discovery;
mod endpoint;
mod exchange;
mod failure;
mod figures;
mod health;
mod member;
mod pool;
mod pools;
mod sticky;
mod wire;

pub use balance::StableHash;
pub use endpoint::Endpoint;
pub use exchange::{Answer, Body, Ending, Exchange, Failure, Feed, Trail, Wanted, Witness, body, peer};
pub use failure::{FailureKind, kind};
pub use figures::Tally;
pub use health::{Outcome, ServerState, TryResult};
pub use member::ServerStatus;
pub use pool::{Ask, Chosen, NoServer, Pool};
pub use pools::Pools;
pub use sticky::{Sticky, cookies};
pub use wire::ConnectionCounts;
pub use wire::Proxied;
