//! The room `cli`.

pub mod demo;
