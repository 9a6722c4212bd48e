//! A vote, once given, is remembered.

/// The newest term in which a member was seen to lead: it voted for itself then, and must know.
///
/// A member that forgets its vote can vote twice in a term, and two leaders of one term lose writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct VotesAreKept {
    led_term: u64,
}

impl VotesAreKept {
    /// The name of the invariant.
    pub const NAME: &'static str = "votes are kept";

    /// The member is seen to lead `term`.
    pub fn leads(&mut self, term: u64) {
        self.led_term = self.led_term.max(term);
    }

    /// The member `id` starts with this term and vote.
    ///
    /// # Errors
    /// What it forgot.
    pub fn starts(&self, id: u64, (term, vote): (u64, u64)) -> Result<(), String> {
        if term < self.led_term || (term == self.led_term && term > 0 && vote != id) {
            return Err(format!(
                "{id} led term {}, and starts in term {term} having voted for {vote}",
                self.led_term
            ));
        }
        Ok(())
    }
}
