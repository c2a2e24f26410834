//! What the YAML says, and what has been checked.

pub mod model;
pub mod pattern;
