//! Flags and environment into a validated configuration.
