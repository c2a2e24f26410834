//! How much: rates, requests in flight, bandwidth.
