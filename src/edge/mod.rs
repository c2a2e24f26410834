//! The proxy and the process around it.
//!
//! `proxy` is the table of contents: each hook of Pingora's in calling order, a line or two into the file that does
//! the work.

mod admin_settings;
mod admission;
mod admit;
mod affinity;
mod arrival;
mod background;
mod body;
mod caching;
pub(crate) mod checks;
mod client;
mod collapse;
mod connection;
mod context;
mod control;
mod crowd;
mod drain;
mod fallback;
mod finish;
mod forward;
mod framing;
mod grpc;
mod guards;
mod hit;
mod http1;
mod http2;
mod interim;
mod invalidate;
mod linger;
mod link;
mod listener;
mod lookup;
mod notify;
mod outgoing;
mod overload;
mod pace;
mod parts;
mod pass;
mod post;
mod preface;
mod proxy;
mod proxy_protocol;
mod purge;
mod purge_method;
mod ranges;
mod receive;
mod reload;
mod request_id;
mod respond;
mod sample;
mod secret;
mod server;
mod shed;
mod state;
mod trace;
mod trailers;
mod upgrade;
mod upstream;
mod watch;
mod witness;

pub(crate) use client::Client;
pub(crate) use forward::join_cookies;
pub use server::{Launch, run};
