//! The gRPC services: validation, replies, the table of errors.
