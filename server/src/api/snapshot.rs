//! `Maintenance.Snapshot`: the whole state of a moment as a file for etcd, in messages of 32 KiB.
//!
//! Each message says how many bytes of the file are left; behind them goes one more, the SHA-256 of the
//! file, and whoever saves them all has what `etcdutl` calls a snapshot.
//!
//! The image is made in steps on threads for blocking work, and the next step begins only when the
//! client has taken what is there: a slow client costs a megabyte or two, a cancelled one nothing. One
//! that takes nothing for the time of a pin has lost its snapshot, and its place is free for another.

use std::pin::Pin as FuturePin;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use quorate_proto::etcdserverpb::SnapshotResponse;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::Status;

use super::context::Context;
use super::errors::Refusal;
use crate::config::ETCD_CLUSTER_VERSION;
use crate::storage::image::{Image, ImageError};
use crate::view::History;

/// What a message holds; etcd's are as large.
const CHUNK_BYTES: usize = 32 * 1024;
/// What one hand-over to a thread makes of the image, at least.
const PART_BYTES: usize = 1 << 20;
/// Steps of one hand-over while the image is measured.
const MEASURE_STEPS: usize = 16;
/// Snapshots that are sent at a time: each holds compaction back.
const SNAPSHOTS_MAX: usize = 4;

/// The snapshots under way. A short list under a lock that is held for nothing else.
#[derive(Clone, Default)]
pub(crate) struct Snapshots {
    sent: Arc<Mutex<Vec<Sent>>>,
}

/// A snapshot that counts as long as somebody holds it.
enum Sent {
    /// It was let in, and what it will hold is not known yet.
    Admitted(Weak<Admission>),
    Captured(Weak<History>),
}

/// That a snapshot was let in.
struct Admission;

/// The time from the capture to the end of a stream, however it ends.
struct Transfer {
    context: Context,
    started: Instant,
}

/// The messages of one snapshot.
pub(crate) struct SnapshotStream {
    context: Context,
    /// Measured until it is dropped.
    _transfer: Transfer,
    /// `None` once everything is made.
    making: Option<Making>,
    /// Bytes that are made and not sent.
    ready: Bytes,
    /// Bytes of the file that are not sent.
    remaining_bytes: u64,
    /// The last message.
    digest: Option<Bytes>,
}

/// An image while nobody works on it, or the thread that does.
enum Making {
    Idle(Box<Image>),
    Busy(JoinHandle<Made>),
}

/// What a thread brings back.
struct Made {
    image: Box<Image>,
    result: Result<Part, ImageError>,
}

/// A part of the work on an image.
enum Part {
    Measuring,
    /// The length of the image, in bytes.
    Measured(u64),
    Bytes {
        bytes: Vec<u8>,
        has_more: bool,
    },
}

impl Snapshots {
    /// Starts one of what this member has applied.
    ///
    /// # Errors
    /// If there are too many already, or the member stops.
    pub(crate) async fn start(&self, context: Context) -> Result<SnapshotStream, Status> {
        // First: to capture copies all records on the owner.
        let admission = self.admit()?;
        let capture = context.handle().capture().await.map_err(Refusal::from)?;
        self.captured(&admission, &capture.history);
        let transfer = Transfer { context: context.clone(), started: Instant::now() };
        let revision = capture.history.revision();
        tracing::info!(revision, "sending a snapshot to a client");
        let keys = (capture.history, context.handle().rows().clone());
        // There may be a million leases.
        let begin = move || Image::new(keys, &capture.inventory, ETCD_CLUSTER_VERSION);
        let image = tokio::task::spawn_blocking(begin)
            .await
            .map_err(|error| Status::internal(format!("cannot make a snapshot: {error}")))?;
        Ok(SnapshotStream {
            context,
            _transfer: transfer,
            making: Some(Making::Idle(Box::new(image))),
            ready: Bytes::new(),
            remaining_bytes: 0,
            digest: None,
        })
    }

    fn admit(&self) -> Result<Arc<Admission>, Refusal> {
        let mut sent = self.sent.lock();
        sent.retain(Sent::is_under_way);
        if sent.len() >= SNAPSHOTS_MAX {
            return Err(Refusal::TooManyRequests);
        }
        let admission = Arc::new(Admission);
        sent.push(Sent::Admitted(Arc::downgrade(&admission)));
        Ok(admission)
    }

    /// From now on the snapshot counts as long as its keys are pinned.
    fn captured(&self, admission: &Arc<Admission>, history: &Arc<History>) {
        let own = Arc::downgrade(admission);
        for sent in self.sent.lock().iter_mut() {
            if matches!(sent, Sent::Admitted(admitted) if admitted.ptr_eq(&own)) {
                *sent = Sent::Captured(Arc::downgrade(history));
            }
        }
    }
}

impl Sent {
    fn is_under_way(&self) -> bool {
        match self {
            Self::Admitted(admission) => admission.strong_count() > 0,
            Self::Captured(history) => history.upgrade().is_some_and(|it| it.is_pinned()),
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.context.metrics().disk.snapshot_seconds.observe(seconds);
    }
}

impl SnapshotStream {
    /// The next message, if enough is ready for one.
    fn message(&mut self) -> Option<SnapshotResponse> {
        let is_made = self.making.is_none();
        if self.ready.len() >= CHUNK_BYTES || (is_made && self.ready.has_remaining()) {
            let blob = self.ready.split_to(self.ready.len().min(CHUNK_BYTES));
            self.remaining_bytes -= blob.len() as u64;
            return Some(self.wrap(blob));
        }
        let digest = if is_made { self.digest.take() } else { None };
        digest.map(|digest| self.wrap(digest))
    }

    fn wrap(&self, blob: Bytes) -> SnapshotResponse {
        SnapshotResponse {
            header: None,
            remaining_bytes: self.remaining_bytes,
            blob,
            version: ETCD_CLUSTER_VERSION.to_owned(),
        }
    }

    /// The status with which the stream ends.
    fn refuse(&self, error: ImageError) -> Status {
        match error {
            ImageError::Read(error) => self.context.refuse_read(error),
            error @ ImageError::Torn { .. } => {
                tracing::error!(%error, "a snapshot was not written as it was measured");
                Status::internal(format!("cannot make a snapshot: {error}"))
            }
        }
    }

    /// Waits for what is being made, or has more made; ready when something changed.
    fn poll_make(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Status>> {
        let made = match self.making.take() {
            None => return Poll::Ready(Ok(())),
            Some(Making::Idle(image)) => {
                // What is left of the part before is less than a message.
                let left = std::mem::take(&mut self.ready);
                let work = tokio::task::spawn_blocking(move || make(image, &left));
                self.making = Some(Making::Busy(work));
                return Poll::Ready(Ok(()));
            }
            Some(Making::Busy(mut work)) => match FuturePin::new(&mut work).poll(cx) {
                Poll::Pending => {
                    self.making = Some(Making::Busy(work));
                    return Poll::Pending;
                }
                Poll::Ready(made) => made,
            },
        };
        let Made { image, result } =
            made.map_err(|error| Status::internal(format!("cannot make a snapshot: {error}")))?;
        match result.map_err(|error| self.refuse(error))? {
            Part::Measuring => self.making = Some(Making::Idle(image)),
            Part::Measured(bytes) => {
                self.remaining_bytes = bytes;
                self.making = Some(Making::Idle(image));
            }
            Part::Bytes { bytes, has_more } => {
                self.ready = bytes.into();
                if has_more {
                    self.making = Some(Making::Idle(image));
                } else {
                    self.digest = Some(Bytes::copy_from_slice(&image.digest()));
                    tracing::info!("a snapshot was made");
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream for SnapshotStream {
    type Item = Result<SnapshotResponse, Status>;

    fn poll_next(
        mut self: FuturePin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.message() {
                return Poll::Ready(Some(Ok(message)));
            }
            if self.making.is_none() {
                return Poll::Ready(None);
            }
            if let Err(status) = ready!(self.poll_make(cx)) {
                return Poll::Ready(Some(Err(status)));
            }
        }
    }
}

/// One hand-over of work on `image`; what it writes goes behind `left`.
fn make(mut image: Box<Image>, left: &[u8]) -> Made {
    let result = make_part(&mut image, left);
    Made { image, result }
}

fn make_part(image: &mut Image, left: &[u8]) -> Result<Part, ImageError> {
    if !image.is_measured() {
        for _ in 0..MEASURE_STEPS {
            if let Some(bytes) = image.measure()? {
                return Ok(Part::Measured(bytes));
            }
        }
        return Ok(Part::Measuring);
    }
    let mut bytes = left.to_vec();
    loop {
        let has_more = image.write(&mut bytes)?;
        if !has_more || bytes.len() >= PART_BYTES {
            return Ok(Part::Bytes { bytes, has_more });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::{KeySpace, Limits};
    use crate::view::View;

    #[test]
    fn a_snapshot_has_its_place_before_it_captures_anything_and_until_it_is_sent() {
        let view = View::new(KeySpace::new(Limits { window_bytes_max: 1 << 20 }));
        let snapshots = Snapshots::default();
        let mut admissions: Vec<_> =
            (0..SNAPSHOTS_MAX).map(|_| snapshots.admit().unwrap()).collect();
        assert!(snapshots.admit().is_err());
        // The capture of one failed.
        admissions.pop();
        let admission = snapshots.admit().unwrap();
        let history = view.history();
        snapshots.captured(&admission, &history);
        drop((admission, admissions));
        let admissions: Vec<_> = (1..SNAPSHOTS_MAX).map(|_| snapshots.admit().unwrap()).collect();
        assert!(snapshots.admit().is_err(), "one is being sent");
        drop(history);
        assert!(snapshots.admit().is_ok());
        drop(admissions);
    }
}
