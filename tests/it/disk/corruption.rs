//! Damaged files are never served.
