//! Foreland: a caching, balancing, explaining CDN edge on Pingora.
//!
//! The rooms, from the pure rules upwards. Arrows run downwards only: `edge` uses the rooms, the rooms use
//! `http_cache` and `config`, and no room knows another's inside.

#![deny(unsafe_code)]

pub mod http_cache;

pub mod bearer;

pub mod watched;

pub mod config;

pub mod site;

pub mod invalidate;

pub mod store;

pub mod origin;

pub mod guard;

pub mod tls;

pub mod observe;

pub mod admin;

pub mod edge;

pub mod cli;

#[cfg(test)]
mod testing;
