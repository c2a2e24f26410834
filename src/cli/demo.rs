//! `foreland demo`: an edge before three origins that live in the same process. No files, nothing to install.

mod banner;
mod config;
mod control;
mod image;
mod origins;

pub use banner::banner;
pub use config::config_yaml;
pub use control::{DemoOrigins, start};
