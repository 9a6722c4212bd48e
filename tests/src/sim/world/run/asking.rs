//! What clients ask in a run, and what becomes of their questions.

use quorate_proto::etcdserverpb::{CompactionRequest, LeaseRevokeRequest};

use super::super::clients::{Answer, Ask, Got, Verdict, Way, verdict};
use super::super::leasing::Wish;
use super::super::member::Life;
use super::Run;
use crate::model::{Refusal, Reply, Request};
use crate::sim::history::Event;
use crate::sim::invariants::{ErrorsAreThoseOfTheApi, Violation, named};
use crate::sim::leases::Asked;
use crate::sim::workload::Workload;

/// What is to be asked next.
pub(super) struct Asking {
    pub(super) workload: Workload,
    /// What to ask before anything new.
    pub(super) urgent: Vec<Request>,
    next_op: u64,
}

impl Asking {
    pub(super) fn new(workload: Workload) -> Self {
        Self { workload, urgent: Vec::new(), next_op: 0 }
    }
}

impl Run {
    pub(super) fn name(&mut self) -> u64 {
        self.asking.next_op += 1;
        self.asking.next_op
    }

    pub(super) fn begin(&mut self, life: &Life) -> Result<(), Violation> {
        if self.asking.urgent.is_empty() && self.rng.one_in(self.plan.defragment_one_in) {
            return self.defragment(life);
        }
        if self.plan.defragment_at.take_if(|at| *at <= self.record.requests).is_some() {
            return self.defragment(life);
        }
        let request = match self.asking.urgent.pop() {
            Some(request) => request,
            None if self.rng.percent(self.plan.lease_percent) => {
                self.record.requests += 1;
                match self.leasing.wish(&mut self.rng) {
                    Some(Wish::Revoke(id)) => Request::LeaseRevoke(LeaseRevokeRequest { id }),
                    Some(Wish::Ask(ask)) => {
                        self.record.trace.line(format_args!("{ask:?}"));
                        let future = life.services.clone().call(ask.clone(), Way::Whole);
                        self.clients.begin(ask, future);
                        return Ok(());
                    }
                    None => return Ok(()),
                }
            }
            None => {
                self.record.requests += 1;
                self.asking.workload.next_request(self.referee.history().known_revision())
            }
        };
        let op = self.name();
        self.referee.observe(&Event::Begun { op, request: &request })?;
        self.leasing.begun(op, &request);
        let way = *self.rng.pick(&[Way::Whole, Way::ByRound, Way::Stream]);
        let way = if way.suits(&request) { way } else { Way::Whole };
        let ask = Ask::Known(op, request);
        let future = life.services.clone().call(ask.clone(), way);
        self.clients.begin(ask, future);
        Ok(())
    }

    fn defragment(&mut self, life: &Life) -> Result<(), Violation> {
        self.record.trace.line(format_args!("defragment"));
        let future = life.services.clone().call(Ask::Defragment, Way::Whole);
        self.clients.begin(Ask::Defragment, future);
        Ok(())
    }

    pub(super) fn answered(
        &mut self,
        life: &Life,
        ask: Ask,
        answer: Answer,
    ) -> Result<(), Violation> {
        let (op, request) = match ask {
            Ask::Known(op, request) => (op, request),
            Ask::Grant { id, asked, .. } | Ask::Renew { id, asked } => {
                return self.answered_about_lease(&ask, (id, asked), answer);
            }
            Ask::Defragment | Ask::Disarm => {
                let error = answer.err().map(|error| error.to_string());
                self.record.trace.line(format_args!("{ask:?}: {error:?}"));
                return Ok(());
            }
        };
        let status = match answer {
            Ok(Got::Reply(reply)) => {
                self.leasing.ended(op, &request, None)?;
                if let Request::LeaseRevoke(revoke) = request {
                    self.leasing.revoked(revoke.id);
                }
                return self.replied(op, &reply);
            }
            Ok(Got::TtlS(_) | Got::Nothing) => return Ok(()),
            Err(status) => status,
        };
        self.record.trace.line(format_args!("{op}: {}", status.message()));
        let verdict = ErrorsAreThoseOfTheApi::read(&status, verdict(&status));
        match named(ErrorsAreThoseOfTheApi::NAME, verdict)? {
            Verdict::Refused(refusal) => {
                self.leasing.ended(op, &request, Some(refusal))?;
                self.refused(op, refusal)
            }
            Verdict::Shed { no_space } => {
                self.referee.observe(&Event::Shed { op })?;
                if no_space && self.rng.one_in(3) {
                    self.make_room(life)?;
                }
                Ok(())
            }
            Verdict::Unknown => self.referee.observe(&Event::Unknown { op }),
        }
    }

    fn answered_about_lease(
        &mut self,
        ask: &Ask,
        lease: (i64, Asked),
        answer: Answer,
    ) -> Result<(), Violation> {
        let ttl_s = match answer {
            Ok(Got::TtlS(ttl_s)) => Some(ttl_s),
            Ok(Got::Reply(_) | Got::Nothing) => None,
            Err(status)
                if matches!(verdict(&status), Some(Verdict::Shed { .. } | Verdict::Unknown)) =>
            {
                self.record.trace.line(format_args!("{ask:?}: {}", status.message()));
                None
            }
            Err(status) => {
                return named(ErrorsAreThoseOfTheApi::NAME, Err(status.to_string()));
            }
        };
        self.record.trace.line(format_args!("{ask:?}: {ttl_s:?}"));
        self.leasing.answered(lease, ttl_s)
    }

    fn replied(&mut self, op: u64, reply: &Reply) -> Result<(), Violation> {
        self.record.trace.line(format_args!("{op} at {}", reply.revision()));
        self.referee.observe(&Event::Replied { op, reply })
    }

    fn refused(&mut self, op: u64, refusal: Refusal) -> Result<(), Violation> {
        self.referee.observe(&Event::Refused { op, refusal })
    }

    /// What an operator does about NOSPACE: compacts everything, then takes the alarm back.
    fn make_room(&mut self, life: &Life) -> Result<(), Violation> {
        let revision = self.referee.history().known_revision();
        self.asking.urgent.push(Request::Compact(CompactionRequest { revision, physical: true }));
        let future = life.services.clone().call(Ask::Disarm, Way::Whole);
        self.clients.begin(Ask::Disarm, future);
        Ok(())
    }
}
