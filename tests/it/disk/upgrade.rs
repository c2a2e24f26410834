//! Two processes over one folder.
