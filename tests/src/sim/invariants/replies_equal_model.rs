//! Each reply is the one that the API means.

use super::Invariant;
use crate::model::Request;
use crate::sim::history::{Event, Fate, History};

/// Every reply, and every refusal, is what the naive model says at the revision in its header; reads in
/// steps and reads of the past included.
pub struct RepliesEqualModel;

impl Invariant for RepliesEqualModel {
    fn name(&self) -> &'static str {
        "replies equal the model"
    }

    fn on_event(&mut self, _: &Event<'_>, history: &History) -> Result<(), String> {
        for settled in history.settled() {
            let Some(recorded) = history.op(settled.op) else { continue };
            let equal = match (&recorded.fate, &settled.expected) {
                _ if matches!(recorded.request, Request::HashKv(_)) => true,
                (Fate::Replied(given), Ok(expected)) => given == expected,
                (Fate::Refused(given), Err(expected)) => given == expected,
                (Fate::Replied(_), Err(_)) | (Fate::Refused(_), Ok(_)) => false,
                (Fate::Open | Fate::Shed | Fate::Unknown | Fate::Found(_), _) => true,
            };
            if !equal {
                let (op, request, fate) = (settled.op, &recorded.request, &recorded.fate);
                let expected = &settled.expected;
                return Err(format!("{op} {request:?}\n  got {fate:?}\n  and not {expected:?}"));
            }
        }
        Ok(())
    }
}
