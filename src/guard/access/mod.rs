//! Which requests are let in: by the client's address, where that is, who the client is, and what it asks for.

mod agents;
mod geo;
mod lists;
#[cfg(test)]
mod mmdb_writer;
mod networks;
mod referer;
mod rules;

pub use geo::Geo;
pub use lists::Lists;
pub use networks::NetworkSet;
pub use rules::Access;
