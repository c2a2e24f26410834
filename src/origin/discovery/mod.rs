//! Which servers there are: as the file says, as names resolve, and as a watched file lists them.

pub(super) mod dns;

use super::endpoint::Endpoint;

/// A server that has been found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) endpoint: Endpoint,
    /// How the operator calls it: `host:port` as configured, as an SRV record says it, or as a file lists it.
    pub(super) text: String,
    /// 0 to 256; 0 takes no new requests.
    pub(super) weight: usize,
    pub(super) tier: u8,
}
