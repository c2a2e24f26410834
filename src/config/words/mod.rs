//! The kinds of values that the file holds: how each is read, and what is said of one that is wrong.

mod choice;
mod guard;
mod key;
mod limit;
mod listener;
mod matching;
mod net;
mod origin;
mod probe;
mod quantity;
mod text;

pub(super) use choice::*;
pub(super) use guard::*;
pub(super) use key::*;
pub(super) use limit::*;
pub(super) use listener::*;
pub(super) use matching::*;
pub(super) use net::*;
pub(super) use origin::*;
pub(super) use probe::*;
pub(super) use quantity::*;
pub(super) use text::*;
