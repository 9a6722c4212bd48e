//! The view against a naive history.
