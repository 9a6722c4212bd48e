//! The owner thread: takes events, hands them to the replica, performs its effects in order.
