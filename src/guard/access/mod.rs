//! Who: addresses, countries, and what else of a request must hold.
