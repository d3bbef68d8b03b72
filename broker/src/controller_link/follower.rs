//! Follows the committed metadata: from any controller, a snapshot first when too far behind, then each entry once and in
//! order.

use std::sync::Arc;
use std::time::Duration;

use ottla_metadata::apply::ApplyError;
use ottla_metadata::image::{LogIndex, MetadataDelta, MetadataImage};
use ottla_proto::controller as proto;
use ottla_proto::controller::metadata_update::Update;
use tokio_util::sync::CancellationToken;

use super::{ControllerClient, ImageHandle};

/// Pause before another controller is asked after a stream ended.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Entries that are applied together when they arrive together: one image and one pass over the replicas for all.
const BATCH_ENTRIES_MAX: usize = 256;

/// Why following has ended for good.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The metadata cannot be understood: going on would mean serving from a wrong image.
    #[error("the committed metadata cannot be applied: {0}")]
    Apply(#[from] ApplyError),
}

/// Receives each new image, in order. The callback sees what changed since the one before; `None`: everything may have.
/// It runs before the image is published.
pub async fn follow_metadata(
    client: ControllerClient,
    node_id: i32,
    image: ImageHandle,
    mut on_image: impl FnMut(&Arc<MetadataImage>, Option<&MetadataDelta>) + Send + 'static,
    stopping: CancellationToken,
) -> Result<(), FollowError> {
    let mut follower = Follower { image, snapshot: None };
    loop {
        let (endpoint, mut grpc) = client.any();
        let request = proto::FollowMetadataRequest {
            node_id,
            from_index: follower.image.index() + 1,
            cluster_id: follower.image.current().cluster_id().to_owned(),
        };
        let streamed = async {
            let mut updates = grpc.follow_metadata(request).await?.into_inner();
            follower.snapshot = None;
            while let Some(update) = updates.message().await? {
                client.note_leader_id(update.leader_id);
                client.note_leader(&update.leader_endpoint);
                let mut batch = vec![update];
                // Whatever has arrived already is applied in one step.
                while batch.len() < BATCH_ENTRIES_MAX {
                    let ready = futures_util::FutureExt::now_or_never(updates.message());
                    match ready {
                        Some(Ok(Some(update))) => batch.push(update),
                        Some(Ok(None) | Err(_)) | None => break,
                    }
                }
                if let Err(error) = follower.apply(batch, &mut on_image) {
                    return Ok(Err(error));
                }
            }
            Ok::<_, tonic::Status>(Ok(()))
        };
        let outcome = tokio::select! {
            outcome = streamed => outcome,
            () = stopping.cancelled() => return Ok(()),
        };
        match outcome {
            Ok(Err(error)) => return Err(error.into()),
            Ok(Ok(())) => tracing::debug!(endpoint, "the metadata stream ended; asking another controller"),
            Err(status) => {
                tracing::debug!(endpoint, error = status.message(), "no metadata from this controller");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            () = stopping.cancelled() => return Ok(()),
        }
    }
}

/// A snapshot that is arriving.
#[derive(Default)]
struct Snapshot {
    records: Vec<ottla_proto::metadata::MetadataRecord>,
    broker_epochs: Vec<proto::BrokerEpoch>,
}

struct Follower {
    image: ImageHandle,
    snapshot: Option<Snapshot>,
}

impl Follower {
    fn apply(
        &mut self,
        updates: Vec<proto::MetadataUpdate>,
        on_image: &mut impl FnMut(&Arc<MetadataImage>, Option<&MetadataDelta>),
    ) -> Result<(), ApplyError> {
        let mut image = (*self.image.current()).clone();
        let mut changed = MetadataDelta::default();
        let before = image.index();
        for update in updates {
            match update.update {
                Some(Update::Snapshot(chunk)) => {
                    if let Some(whole) = self.collect(chunk)? {
                        image = whole;
                        self.publish(Arc::new(image.clone()), None, on_image);
                        changed = MetadataDelta::default();
                    }
                }
                Some(Update::Delta(delta)) => {
                    // A new stream may begin with what is known already.
                    if LogIndex(delta.index) <= image.index() {
                        continue;
                    }
                    let (next, delta) = image.apply(LogIndex(delta.index), &delta.records)?;
                    image = next;
                    changed.merge(delta);
                }
                None => {}
            }
        }
        if image.index() > before && image.index().0 > self.image.index() {
            self.publish(Arc::new(image), Some(&changed), on_image);
        }
        Ok(())
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

    fn publish(
        &self,
        image: Arc<MetadataImage>,
        delta: Option<&MetadataDelta>,
        on_image: &mut impl FnMut(&Arc<MetadataImage>, Option<&MetadataDelta>),
    ) {
        on_image(&image, delta);
        self.image.publish(image);
    }
}
