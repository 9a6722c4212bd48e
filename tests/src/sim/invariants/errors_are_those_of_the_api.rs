//! Clients see no error that the API does not have.

use tonic::Status;

/// Each error of a request is one of etcd's, code and text.
pub struct ErrorsAreThoseOfTheApi;

impl ErrorsAreThoseOfTheApi {
    /// The name of the invariant.
    pub const NAME: &'static str = "errors are those of the API";

    /// A request ended with `status`; `verdict` is what a client makes of it, if it knows it.
    ///
    /// # Errors
    /// The status, if no client knows what to make of it.
    pub fn read<V>(status: &Status, verdict: Option<V>) -> Result<V, String> {
        verdict.ok_or_else(|| status.to_string())
    }
}
