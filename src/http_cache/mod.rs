//! The pure rules of HTTP caching: headers, method, status, `now` and policy in; decisions out.
//!
//! No I/O, no clock, no Pingora session.

mod policy;

pub use policy::Policy;
