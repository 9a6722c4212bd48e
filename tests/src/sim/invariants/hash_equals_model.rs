//! The hash is a function of the history.

use super::Invariant;
use crate::model::Request;
use crate::sim::history::{Event, Fate, History};

/// `HashKV` is what the naive model computes for the revision and compaction that the reply names,
/// however far deletion has come.
pub struct HashEqualsModel;

impl Invariant for HashEqualsModel {
    fn name(&self) -> &'static str {
        "hash equals the model"
    }

    fn on_event(&mut self, _: &Event<'_>, history: &History) -> Result<(), String> {
        for settled in history.settled() {
            let Some(recorded) = history.op(settled.op) else { continue };
            let Request::HashKv(request) = &recorded.request else { continue };
            let Fate::Replied(given) = &recorded.fate else { continue };
            if settled.expected.as_ref() != Ok(given) {
                let expected = &settled.expected;
                return Err(format!("{request:?} gave {given:?} and not {expected:?}"));
            }
        }
        Ok(())
    }
}
