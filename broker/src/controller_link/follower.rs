//! Follows the committed metadata: a snapshot first when too far behind, then each entry once and in order.
//!
//! From the controller that leads, which knows first what is committed; a broker that cannot reach that one follows any
//! other, which is behind by a Raft heartbeat.
//!
//! Nothing is published before the image has this broker's own registration. A controller that has just started may know less
//! than this broker's disk does: to a half-told history the logs of later topics belong to nobody, and would be removed.

use std::sync::Arc;
use std::time::Duration;

use ottla_metadata::apply::ApplyError;
use ottla_metadata::image::{LogIndex, MetadataDelta, MetadataImage};
use ottla_proto::controller as proto;
use ottla_proto::controller::metadata_update::Update;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ControllerClient, ImageHandle};

/// Pause before another controller is asked after a stream ended.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Pause before the next leader is followed: its first entries may be elections that clients wait for.
const SWITCH_PAUSE: Duration = Duration::from_millis(2);
/// Entries that are applied together when they arrive together: one image and one pass over the replicas for all.
const BATCH_ENTRIES_MAX: usize = 256;

/// A controller that says nothing for so long hangs: also without news it gives a sign of life far more often.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// A leader that hangs is left alone for so long, while another controller can be followed.
const AVOIDED_FOR: Duration = Duration::from_secs(10);
/// One that was there no more when it was called, or ended the stream, is a process that ended: the next one at that address may
/// lead soon, and whoever follows another controller is behind it by a Raft heartbeat. Doubles with each failure in a row.
const AVOIDED_AFTER_BREAK: Duration = Duration::from_millis(100);

/// Why following has ended for good.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The metadata cannot be understood: going on would mean serving from a wrong image.
    #[error("the committed metadata cannot be applied: {0}")]
    Apply(#[from] ApplyError),
}

/// Receives each new image, in order. The callback sees what changed since the one before; `None`: everything may have.
/// It runs before the image is published. `registered` is the index of this broker's registration, -1 until it is
/// known; a node without a broker gives 0.
pub async fn follow_metadata(
    client: ControllerClient,
    node_id: i32,
    image: ImageHandle,
    mut registered: watch::Receiver<i64>,
    mut on_image: impl FnMut(&Arc<MetadataImage>, Option<&MetadataDelta>) + Send + 'static,
    stopping: CancellationToken,
) -> Result<(), FollowError> {
    let publishes_from = *registered.borrow_and_update();
    let mut follower = Follower { latest: image.current(), image, snapshot: None, publishes_from };
    let mut avoided: Option<Avoided> = None;
    let mut leader = client.watch_leader();
    loop {
        let avoided_until = avoided.as_ref().map(|avoided| avoided.until);
        let is_over = avoided_until.is_none_or(|until| until <= Instant::now());
        let mut avoid = avoided.as_ref().map(|avoided| avoided.endpoint.clone()).filter(|_| !is_over);
        let mut was_followed = false;
        let (endpoint, mut grpc) = pick(&client, avoid.as_deref());
        let request = proto::FollowMetadataRequest {
            node_id,
            from_index: follower.latest.index().0 + 1,
            cluster_id: follower.latest.cluster_id().to_owned(),
        };
        let streamed = async {
            let opening = tokio::time::timeout(SILENCE_MAX, grpc.follow_metadata(request));
            let mut updates = opening.await.map_err(|_| silent())??.into_inner();
            follower.snapshot = None;
            loop {
                let update = tokio::select! {
                    update = tokio::time::timeout(SILENCE_MAX, updates.message()) => {
                        update.map_err(|_| silent())??
                    }
                    () = another_leads(&mut leader, &endpoint, avoid.as_deref()) => return Ok(Ok(true)),
                    () = sleep_until(avoided_until), if avoid.is_some() => {
                        avoid = None;
                        continue;
                    }
                    Ok(()) = registered.changed() => {
                        follower.publishes_from = *registered.borrow_and_update();
                        follower.publish(None, &mut on_image);
                        continue;
                    }
                };
                let Some(mut update) = update else { break };
                was_followed = true;
                client.note_controllers(std::mem::take(&mut update.controller_endpoints));
                client.note_leader_id(update.leader_id);
                client.note_leader(&update.leader_endpoint);
                let mut batch = vec![update];
                // Whatever has arrived already is applied in one step.
                while batch.len() < BATCH_ENTRIES_MAX {
                    let ready = futures_util::FutureExt::now_or_never(updates.message());
                    match ready {
                        Some(Ok(Some(mut update))) => {
                            client.note_controllers(std::mem::take(&mut update.controller_endpoints));
                            client.note_leader_id(update.leader_id);
                            client.note_leader(&update.leader_endpoint);
                            batch.push(update);
                        }
                        Some(Ok(None) | Err(_)) | None => break,
                    }
                }
                if let Err(error) = follower.apply(batch, &mut on_image) {
                    return Ok(Err(error));
                }
            }
            Ok::<_, tonic::Status>(Ok(false))
        };
        let outcome = tokio::select! {
            outcome = streamed => outcome,
            () = stopping.cancelled() => return Ok(()),
        };
        let mut pause = RETRY_PAUSE;
        match outcome {
            Ok(Err(error)) => return Err(error.into()),
            // Known where to go.
            Ok(Ok(true)) => pause = SWITCH_PAUSE,
            Ok(Ok(false)) => {
                tracing::debug!(endpoint, "the metadata stream ended; asking another controller");
            }
            Err(status) => {
                tracing::debug!(endpoint, error = status.message(), "no metadata from this controller");
                client.forget(&endpoint);
                let earlier = avoided.filter(|_| !was_followed);
                avoided = Some(Avoided::after(endpoint, &status, earlier, Instant::now()));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => return Ok(()),
        }
    }
}

/// A controller that could not be followed, and is left alone for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Avoided {
    endpoint: String,
    until: Instant,
    pause: Duration,
}

impl Avoided {
    /// `earlier`: who could not be followed before it, without one that could in between.
    fn after(endpoint: String, status: &tonic::Status, earlier: Option<Self>, now: Instant) -> Self {
        let is_silent = status.code() == tonic::Code::DeadlineExceeded;
        let pause = match earlier {
            _ if is_silent => AVOIDED_FOR,
            Some(earlier) if earlier.endpoint == endpoint => (earlier.pause * 2).min(AVOIDED_FOR),
            _ => AVOIDED_AFTER_BREAK,
        };
        Self { endpoint, until: now + pause, pause }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The controller that leads, unless it is to be avoided or is not known; then another one in turn.
fn pick(
    client: &ControllerClient,
    avoid: Option<&str>,
) -> (String, proto::controller_client::ControllerClient<tonic::transport::Channel>) {
    let picked = client.leader();
    if avoid != Some(&*picked.0) {
        return picked;
    }
    let other = client.any();
    if avoid == Some(&*other.0) { client.any() } else { other }
}

/// Returns when another controller than this one is known to lead, and is not to be avoided.
async fn another_leads(leader: &mut watch::Receiver<Option<String>>, endpoint: &str, avoid: Option<&str>) {
    let is_another = |leader: &Option<String>| {
        leader.as_deref().is_some_and(|leader| leader != endpoint && Some(leader) != avoid)
    };
    if leader.wait_for(is_another).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn silent() -> tonic::Status {
    tonic::Status::deadline_exceeded(format!("nothing was heard for {} s", SILENCE_MAX.as_secs()))
}

/// A snapshot that is arriving.
#[derive(Default)]
struct Snapshot {
    records: Vec<ottla_proto::metadata::MetadataRecord>,
    broker_epochs: Vec<proto::BrokerEpoch>,
}

struct Follower {
    /// The image as of the last entry that has arrived.
    latest: Arc<MetadataImage>,
    image: ImageHandle,
    snapshot: Option<Snapshot>,
    /// Index of the registration; -1: not registered yet, nothing is published.
    publishes_from: i64,
}

impl Follower {
    fn apply(
        &mut self,
        updates: Vec<proto::MetadataUpdate>,
        on_image: &mut impl FnMut(&Arc<MetadataImage>, Option<&MetadataDelta>),
    ) -> Result<(), ApplyError> {
        let mut image = (*self.latest).clone();
        let mut changed = Some(MetadataDelta::default());
        for update in updates {
            match update.update {
                Some(Update::Snapshot(chunk)) => {
                    if let Some(whole) = self.collect(chunk)?.filter(|whole| whole.index() > image.index()) {
                        image = whole;
                        changed = None;
                    }
                }
                Some(Update::Delta(delta)) => {
                    // A new stream may begin with what is known already.
                    if LogIndex(delta.index) <= image.index() {
                        continue;
                    }
                    let (next, delta) = image.apply(LogIndex(delta.index), &delta.records)?;
                    image = next;
                    if let Some(changed) = &mut changed {
                        changed.merge(delta);
                    }
                }
                None => {}
            }
        }
        self.latest = Arc::new(image);
        self.publish(changed.as_ref(), on_image);
        Ok(())
    }

    /// Publishes the latest image when it is new and may be seen. The first one is news as a whole.
    fn publish(
        &self,
        changed: Option<&MetadataDelta>,
        on_image: &mut impl FnMut(&Arc<MetadataImage>, Option<&MetadataDelta>),
    ) {
        let index = self.latest.index().0;
        if self.publishes_from < 0 || index < self.publishes_from || index <= self.image.index() {
            return;
        }
        let is_first = self.image.index() < self.publishes_from;
        on_image(&self.latest, changed.filter(|_| !is_first));
        self.image.publish(Arc::clone(&self.latest));
    }

    fn collect(&mut self, chunk: proto::SnapshotChunk) -> Result<Option<MetadataImage>, ApplyError> {
        let snapshot = self.snapshot.get_or_insert_default();
        snapshot.records.extend(chunk.records);
        snapshot.broker_epochs.extend(chunk.broker_epochs);
        if !chunk.last {
            return Ok(None);
        }
        let whole = self.snapshot.take().unwrap_or_default();
        MetadataImage::from_records(LogIndex(chunk.index), &whole.records, &whole.broker_epochs).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: i64) -> proto::MetadataUpdate {
        let delta = proto::Delta { index, ..Default::default() };
        proto::MetadataUpdate { update: Some(Update::Delta(delta)), ..Default::default() }
    }

    #[test]
    fn a_controller_that_ended_is_called_again_soon_and_one_that_hangs_is_not() {
        let now = Instant::now();
        let ended = tonic::Status::unavailable("connection refused");
        let mut avoided = Avoided::after("a:1".into(), &ended, None, now);
        assert_eq!(avoided.until, now + AVOIDED_AFTER_BREAK);
        // Failing on, it is called more and more rarely.
        for _ in 0..20 {
            let earlier = avoided.pause;
            avoided = Avoided::after("a:1".into(), &ended, Some(avoided), now);
            assert!(avoided.pause == AVOIDED_FOR || avoided.pause == earlier * 2);
        }
        assert_eq!(avoided.pause, AVOIDED_FOR);
        assert_eq!(Avoided::after("b:1".into(), &ended, Some(avoided), now).pause, AVOIDED_AFTER_BREAK);
        assert_eq!(Avoided::after("a:1".into(), &silent(), None, now).pause, AVOIDED_FOR);
    }

    /// S-L04: the logs of topics that a slow controller has not told of yet are not taken for strays.
    #[test]
    fn nothing_is_published_before_the_own_registration_is_in_the_image() {
        let image = ImageHandle::default();
        let mut follower =
            Follower { latest: image.current(), image: image.clone(), snapshot: None, publishes_from: -1 };
        let mut seen = Vec::new();
        let mut on_image = |image: &Arc<MetadataImage>, delta: Option<&MetadataDelta>| {
            seen.push((image.index().0, delta.is_some()));
        };
        follower.apply(vec![entry(1), entry(2)], &mut on_image).unwrap();
        assert_eq!(image.index(), -1);
        follower.publishes_from = 4;
        follower.publish(None, &mut on_image);
        follower.apply(vec![entry(3)], &mut on_image).unwrap();
        assert_eq!(image.index(), -1);
        follower.apply(vec![entry(4)], &mut on_image).unwrap();
        follower.apply(vec![entry(4), entry(5)], &mut on_image).unwrap();
        assert_eq!(image.index(), 5);
        assert_eq!(seen, [(4, false), (5, true)], "the first image is news as a whole");
    }
}
