//! The kinds of values that the file holds: how each is read, and what is said of one that is wrong.

mod choice;
mod listener;
mod matching;
mod net;
mod origin;
mod probe;
mod quantity;
mod text;

pub(super) use choice::*;
pub(super) use listener::*;
pub(super) use matching::*;
pub(super) use net::*;
pub(super) use origin::*;
pub(super) use probe::*;
pub(super) use quantity::*;
pub(super) use text::*;
