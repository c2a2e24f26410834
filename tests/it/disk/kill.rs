//! What a client has had whole is there after `kill -9`.
