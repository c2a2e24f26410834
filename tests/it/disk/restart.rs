//! What a stop and a start leave as it was.
