//! Health, version and metrics over HTTP.
