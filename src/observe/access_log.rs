//! One record for each request.
