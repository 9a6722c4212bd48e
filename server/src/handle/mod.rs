//! The way to the owner thread: bounded lanes of events, request ids, replies.
//!
//! A [`Handle`] is what everyone but the owner holds. Requests go in as events and come back as
//! replies; reads go past the owner, to the [`View`], after [`Handle::linearize`].

mod leases;
mod mailbox;
mod replies;
mod status;
mod watches;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::oneshot;

use crate::mvcc::{Rows, RowsError};
use crate::replica::{Event, Reply, RequestId};
use crate::state_machine::{
    Alarm, AlarmKind, ConfChange, ConfChangeKind, Member, quota_cost_bytes, with_id,
};
use crate::view::View;

pub use crate::replica::{Capture, Committed, RequestError, TimeToLive};
pub use crate::state_machine::{ApplyError, Response};
pub use mailbox::{Delivery, Mailbox, Refused, Request, Stop};
pub use replies::Replies;
pub use status::{LogSync, Status};
pub use watches::Watches;

/// The shared end of the owner's queue. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// Where the result of a defragmentation goes; the error says why there was none.
pub type Defragmented = oneshot::Sender<Result<(), String>>;

/// What a handle is made of.
pub struct Parts {
    /// What readers see.
    pub view: Arc<View>,
    /// The flushed rows.
    pub rows: Arc<dyn Rows>,
    /// Who is told of changes.
    pub watches: Watches,
    /// Where the first request id starts: unique among members and boots.
    pub first_id: u64,
    /// The largest command, in bytes.
    pub request_bytes_max: usize,
    /// The quota in bytes; `None` for none.
    pub quota_bytes: Option<u64>,
    /// How long an answer of the owner is waited for, but that to a compaction. The owner has a bound of
    /// its own, in ticks; this one holds while the owner hangs in a sync. `None` leaves it to the owner, and
    /// needs no timer.
    pub request_timeout: Option<Duration>,
    /// The shortest time to live of a lease, in seconds.
    pub lease_ttl_min_s: i64,
    /// Gives unused space back; called for [`Handle::defragment`].
    pub defragment: Box<dyn Fn(Defragmented) + Send + Sync>,
}

struct Shared {
    parts: Parts,
    mailbox: Mailbox,
    replies: Replies,
    status: Status,
    next_id: AtomicU64,
    /// Small and seldom changed, so readers take a copy of the pointer. Never held over anything.
    members: RwLock<Arc<Vec<Member>>>,
    alarms: RwLock<Arc<Vec<Alarm>>>,
}

impl Handle {
    /// A handle to an owner that has yet to start.
    pub fn new(parts: Parts) -> Self {
        let shared = Shared {
            next_id: AtomicU64::new(parts.first_id),
            parts,
            mailbox: Mailbox::default(),
            replies: Replies::default(),
            status: Status::default(),
            members: RwLock::default(),
            alarms: RwLock::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Proposes an encoded `etcdserverpb.InternalRaftRequest` and waits until it is applied here.
    ///
    /// # Errors
    /// [`RequestError`]; after a timeout the outcome is unknown.
    pub async fn propose(&self, command: Bytes) -> Result<Committed, RequestError> {
        let id = self.next_id();
        let command = with_id(command, id.0);
        if command.len() > self.shared.parts.request_bytes_max {
            return Err(RequestError::TooLarge);
        }
        if !self.has_room_for(&command) {
            // It may wait with many others, and needs no memory for it.
            drop(command);
            return Err(self.refuse_for_space().await);
        }
        match self.ask_in_time(id, Event::Propose { id, command }).await? {
            Reply::Committed(committed) => Ok(committed),
            Reply::Failed(error) => Err(error),
            reply => unreachable!("a proposal was answered with {reply:?}"),
        }
    }

    /// Proposes new peer URLs for `member` and waits until they are applied here. How long they are is
    /// bounded by the transport only, as in etcd, which takes them beyond `request_bytes_max`.
    ///
    /// # Errors
    /// As [`Handle::propose`]; also if another change of the configuration is under way.
    pub async fn update_member(&self, member: Member) -> Result<(), RequestError> {
        let id = self.next_id();
        let change = ConfChange { id: id.0, kind: ConfChangeKind::Update, member };
        let change = change.encode();
        match self.ask_in_time(id, Event::ProposeConfChange { id, change }).await? {
            Reply::Committed(_) => Ok(()),
            Reply::Failed(error) => Err(error),
            reply => unreachable!("a change of a member was answered with {reply:?}"),
        }
    }

    /// Waits until a read of the view is linearizable. One round serves all who wait.
    ///
    /// A member that leads alone needs no round: nobody else can acknowledge a write, and what it
    /// acknowledged itself is in the view.
    ///
    /// # Errors
    /// [`RequestError`]; the read may be tried again.
    pub async fn linearize(&self) -> Result<(), RequestError> {
        if self.status().raft.leads_alone.load(Ordering::Acquire) {
            return Ok(());
        }
        let id = self.next_id();
        match self.ask_in_time(id, Event::ReadIndex { id }).await? {
            Reply::ReadReady => Ok(()),
            Reply::Failed(error) => Err(error),
            reply => unreachable!("a read index was answered with {reply:?}"),
        }
    }

    /// Waits until the compaction at `revision` has deleted its rows durably (`physical`).
    ///
    /// # Errors
    /// [`RequestError::Stopped`] if the member shuts down before.
    pub async fn compaction_finished(&self, revision: i64) -> Result<(), RequestError> {
        let id = self.next_id();
        match self.ask(id, Event::AwaitCompaction { id, revision }).await? {
            Reply::CompactionFinished => Ok(()),
            Reply::Failed(error) => Err(error),
            reply => unreachable!("a wait for a compaction was answered with {reply:?}"),
        }
    }

    /// Takes hold of the whole state as this member has applied it.
    ///
    /// # Errors
    /// [`RequestError`]; it may be tried again.
    pub async fn capture(&self) -> Result<Capture, RequestError> {
        let id = self.next_id();
        match self.ask_in_time(id, Event::Capture { id }).await? {
            Reply::Captured(capture) => Ok(*capture),
            Reply::Failed(error) => Err(error),
            reply => unreachable!("a capture was answered with {reply:?}"),
        }
    }

    /// Gives unused space of the state store back to the file system and waits until it is done. What a
    /// compaction has yet to delete is deleted first, unless a long read holds it back: before that it is
    /// not unused. The inner error says why it cannot be given back; the store goes on as it is.
    ///
    /// # Errors
    /// [`RequestError::Stopped`] if the member shuts down before.
    pub async fn defragment(&self) -> Result<Result<(), String>, RequestError> {
        let compacted = self.view().compact_revision();
        if compacted > self.view().finished_compaction() && !self.view().is_compaction_held() {
            self.compaction_finished(compacted).await?;
        }
        let (done, wait) = oneshot::channel();
        (self.shared.parts.defragment)(done);
        wait.await.map_err(|_| RequestError::Stopped)
    }

    /// What readers see.
    pub fn view(&self) -> &Arc<View> {
        &self.shared.parts.view
    }

    /// The flushed rows, for reads through the view.
    pub fn rows(&self) -> &Arc<dyn Rows> {
        &self.shared.parts.rows
    }

    /// Who is told of changes.
    pub fn watches(&self) -> &Watches {
        &self.shared.parts.watches
    }

    /// What the owner publishes about itself.
    pub fn status(&self) -> &Status {
        &self.shared.status
    }

    /// The members, by ID.
    pub fn members(&self) -> Arc<Vec<Member>> {
        self.shared.members.read().clone()
    }

    /// The raised alarms, by kind and member ID: ascending, and as many as clients raised.
    pub fn alarms(&self) -> Arc<Vec<Alarm>> {
        self.shared.alarms.read().clone()
    }

    /// What the records beside keys and leases take, in bytes: those of members and alarms, and at least
    /// one, so that a size of the store is never zero. They do not count for the quota.
    pub fn record_bytes(&self) -> i64 {
        let members = self.members().iter().map(|member| member.encode().len()).sum::<usize>();
        let alarms = self.alarms().iter().map(|alarm| alarm.encode().len()).sum::<usize>();
        i64::try_from(members + alarms).unwrap_or(i64::MAX).max(1)
    }

    /// Ends the process because a read failed.
    pub fn fail(&self, error: &RowsError) {
        let reason = error.to_string();
        let is_damage = error.is_damage();
        let stop = if is_damage { Stop::Damaged(reason) } else { Stop::Failed(reason) };
        self.shared.mailbox.stop(stop);
    }

    /// Asks the owner for an orderly end.
    pub fn stop(&self) {
        self.shared.mailbox.stop(Stop::Requested);
    }

    /// The owner's end of the lanes.
    pub fn mailbox(&self) -> &Mailbox {
        &self.shared.mailbox
    }

    /// The way of replies.
    pub fn replies(&self) -> &Replies {
        &self.shared.replies
    }

    /// Publishes members, and alarms in ascending order. Only the owner calls this.
    pub fn publish_records(&self, members: Vec<Member>, alarms: Vec<Alarm>) {
        let own_id = self.status().member_id.load(Ordering::Relaxed);
        let is_learner = members.iter().any(|member| member.id == own_id && member.is_learner);
        self.status().raft.is_learner.store(is_learner, Ordering::Relaxed);
        *self.shared.members.write() = Arc::new(members);
        *self.shared.alarms.write() = Arc::new(alarms);
    }

    fn next_id(&self) -> RequestId {
        RequestId(self.shared.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Asks, and gives up after the timeout: the owner may still answer, but nobody listens any more.
    async fn ask_in_time(&self, id: RequestId, event: Event) -> Result<Reply, RequestError> {
        let asked = self.ask(id, event);
        match self.shared.parts.request_timeout {
            None => asked.await,
            Some(timeout) => match tokio::time::timeout(timeout, asked).await {
                Ok(reply) => reply,
                Err(_) => Err(RequestError::Timeout),
            },
        }
    }

    async fn ask(&self, id: RequestId, event: Event) -> Result<Reply, RequestError> {
        let (reply, wait) = oneshot::channel();
        self.shared.mailbox.request(Request { id, event, reply }).map_err(
            |refused| match refused {
                Refused::Full => RequestError::TooManyRequests,
                Refused::Stopped => RequestError::Stopped,
            },
        )?;
        wait.await.map_err(|_| RequestError::Stopped)
    }

    /// Refuses a write that the quota does not admit, once the alarm that says so is up.
    async fn refuse_for_space(&self) -> RequestError {
        let member_id = self.status().member_id.load(Ordering::Relaxed);
        let alarm = Alarm { member_id, kind: AlarmKind::NoSpace };
        if self.alarms().binary_search(&alarm).is_err() {
            let id = self.next_id();
            // Whatever else became of the question, there is no room.
            let _ = self.ask_in_time(id, Event::RefuseForSpace { id }).await;
        }
        RequestError::NoSpace
    }

    /// Whether the quota has room for a command.
    ///
    /// Whether a command adds anything is only looked at near the quota: reading it costs as much as
    /// applying it. A command needs at most its own bytes and some overhead.
    fn has_room_for(&self, command: &Bytes) -> bool {
        const NEAR_BYTES: u64 = 1 << 20;
        let Some(quota_bytes) = self.shared.parts.quota_bytes else { return true };
        let used = self.status().space.db_size_in_use_bytes.load(Ordering::Relaxed);
        let used_bytes = u64::try_from(used).unwrap_or(0);
        if used_bytes + command.len() as u64 * 2 + NEAR_BYTES < quota_bytes {
            return true;
        }
        let cost_bytes = quota_cost_bytes(command).ok().flatten();
        cost_bytes.is_none_or(|cost_bytes| used_bytes + cost_bytes <= quota_bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::task::{Context, Waker};
    use std::time::Instant;

    use super::*;
    use crate::mvcc::tests::store::Store;
    use crate::mvcc::{KeySpace, Limits, Put};
    use crate::watch::Hub;

    pub(crate) fn handle(request_timeout: Option<Duration>) -> Handle {
        Handle::new(Parts {
            view: View::new(KeySpace::new(Limits { window_bytes_max: 1 << 20 })),
            rows: Arc::new(Store::default()),
            watches: Watches::new(Hub::new(1, 1 << 20, 1 << 20, 1)),
            first_id: 1,
            request_bytes_max: 1 << 20,
            quota_bytes: None,
            request_timeout,
            lease_ttl_min_s: 2,
            defragment: Box::new(drop),
        })
    }

    #[test]
    fn a_member_says_that_it_learns_until_it_is_promoted() {
        let handle = handle(None);
        handle.status().member_id.store(2, Ordering::Relaxed);
        let says = |learners: [u64; 1]| {
            let member =
                |id| Member { id, is_learner: learners.contains(&id), ..Member::default() };
            handle.publish_records(vec![member(1), member(2)], Vec::new());
            handle.status().raft.is_learner.load(Ordering::Relaxed)
        };
        assert_eq!([[1], [2], [3]].map(says), [false, true, false]);
    }

    /// The owner of these requests takes nothing and says nothing, like one whose disk hangs.
    #[tokio::test]
    async fn what_a_hanging_owner_does_not_answer_times_out() {
        let handle = handle(Some(Duration::from_millis(1)));
        let committed = handle.propose(Bytes::from_static(b"x")).await;
        assert_eq!(committed.map(|_| ()), Err(RequestError::Timeout));
        assert_eq!(handle.linearize().await, Err(RequestError::Timeout));
        assert_eq!(handle.renew(1).await, Err(RequestError::Timeout));
        assert_eq!(handle.leases().await, Err(RequestError::Timeout));
        assert_eq!(handle.capture().await.map(|_| ()), Err(RequestError::Timeout));
        let updated = handle.update_member(Member::default()).await;
        assert_eq!(updated, Err(RequestError::Timeout));
        handle.status().raft.leads_alone.store(true, Ordering::Release);
        assert_eq!(handle.time_to_live(1, false).await, Err(RequestError::Timeout));
        handle.status().raft.leads_alone.store(false, Ordering::Release);
        assert_eq!(handle.mailbox().close().requests.len(), 7, "the owner finds them later");
        assert_eq!(handle.linearize().await, Err(RequestError::Stopped));
    }

    #[tokio::test]
    async fn a_defragmentation_waits_for_a_compaction_but_not_for_a_read_that_holds_it_back() {
        let handle = handle(None);
        let put = |key: &'static str| {
            let (key, value) = (Bytes::from(key), Some(Bytes::from_static(b"v")));
            let put = Put { key, value, lease: Some(0), prev_kv: false };
            handle.view().write().put(&put, handle.rows().as_ref()).unwrap().unwrap();
        };
        put("a");
        let read = handle.view().pin(0).unwrap();
        put("a");
        handle.view().write().compact(3).unwrap();
        // The state store is asked, and there is none.
        assert_eq!(handle.defragment().await, Err(RequestError::Stopped));
        drop(read);
        let mut waits = std::pin::pin!(handle.defragment());
        let polled = waits.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "nobody compacts here: {polled:?}");
        let mut asked = handle.mailbox().take(Instant::now()).requests;
        let request = asked.pop_front().expect("the owner is asked for the compaction");
        assert!(
            matches!(request.event, Event::AwaitCompaction { revision: 3, .. }) && asked.is_empty()
        );
        assert!(request.reply.send(Reply::CompactionFinished).is_ok(), "somebody waits for it");
        assert_eq!(waits.await, Err(RequestError::Stopped), "now the state store is asked");
    }
}
