//! Every request is answered.

/// A request ends, with a reply or an error of the API, within a bounded number of turns.
pub struct EveryRequestIsAnswered;

impl EveryRequestIsAnswered {
    /// The name of the invariant.
    pub const NAME: &'static str = "every request is answered";

    /// At the end of all turns so many requests wait.
    ///
    /// # Errors
    /// Always: turns end early when none waits.
    pub fn turns_ended(waiting: usize) -> Result<(), String> {
        Err(format!("{waiting} wait"))
    }
}
