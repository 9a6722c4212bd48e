//! One whole member without its I/O: consensus, state machine, pending requests. Pure.
