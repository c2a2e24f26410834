//! The room `edge`.
