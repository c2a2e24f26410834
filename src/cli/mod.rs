//! The room `cli`.

pub mod check;
pub mod schema;
