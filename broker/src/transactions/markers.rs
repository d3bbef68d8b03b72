//! Markers: from the decision of a coordinator to the logs of the transaction's partitions.
//!
//! Each destination has a queue and a task of its own, so that a broker that does not answer holds up nobody but itself.
//! A marker that could not be written is reported, not repeated: the machine asks again, and by then the partition may have
//! another leader. What is on its way to a broker is bounded by the partitions of open transactions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_coordinator::group::TopicPartition;
use ottla_coordinator::transaction::{MarkerOutcome, MarkerToken, SendMarkers};
use ottla_metadata::image::MetadataImage;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::write_txn_markers_request::{Marker, Topic};
use ottla_wire::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use ottla_wire::text::Text;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Foundation;
use super::shard::Shard;
use crate::groups::{GroupService, WrittenMarker};
use crate::internal_topics::CONSUMER_OFFSETS;
use crate::replica::{AckState, AppendedRecords, Clock, EndMarker, Partition, ReplicaManager, Waiter};
use crate::replication::peer::{Peer, PeerError};

/// The request that carries the transaction version.
const WRITE_MARKERS_VERSION: i16 = 2;
/// Transactions in one request.
const MARKERS_PER_REQUEST_MAX: usize = 1_000;
/// While an answer is awaited: how often it is looked at whether the broker is alive at all.
const ALIVE_CHECK: Duration = Duration::from_millis(500);

/// Markers for one destination.
struct Job {
    shard: Arc<Shard>,
    token: MarkerToken,
    marker: EndMarker,
    transaction_version: i8,
    partitions: Vec<TopicPartition>,
}

impl Job {
    fn answered(&self, outcomes: &[(TopicPartition, MarkerOutcome)]) {
        self.shard.markers_answered(self.token, outcomes);
    }

    fn no_answer(&self) {
        let outcomes: Vec<_> =
            self.partitions.iter().map(|partition| (partition.clone(), MarkerOutcome::NoAnswer)).collect();
        self.answered(&outcomes);
    }
}

/// Takes markers from the coordinators of this broker. Sending never blocks and never calls back at once.
pub(super) struct MarkerSender {
    jobs: mpsc::UnboundedSender<(Arc<Shard>, SendMarkers)>,
}

impl MarkerSender {
    pub(super) fn start(foundation: &Foundation, timeout_ms: u64) -> Arc<Self> {
        let (jobs, receiver) = mpsc::unbounded_channel();
        let delivery = Arc::new(Delivery {
            replicas: Arc::clone(&foundation.replicas),
            groups: Arc::clone(&foundation.groups),
            timeout: Duration::from_millis(timeout_ms.max(1)),
            tasks: foundation.tasks.clone(),
            stopping: foundation.stopping.clone(),
        });
        let stopping = foundation.stopping.clone();
        foundation.tasks.spawn(async move {
            tokio::select! {
                () = delivery.sort(receiver) => {}
                () = stopping.cancelled() => {}
            }
        });
        Arc::new(Self { jobs })
    }

    pub(super) fn send(&self, shard: &Arc<Shard>, markers: SendMarkers) {
        // The task ends only with the broker.
        drop(self.jobs.send((Arc::clone(shard), markers)));
    }
}

/// Where a partition's marker goes.
enum Destination {
    Gone,
    Nobody,
    Broker(i32),
}

fn destination(image: &MetadataImage, partition: &TopicPartition) -> Destination {
    let found = image
        .topic_by_name(&partition.topic)
        .and_then(|topic| topic.partitions.get(usize::try_from(partition.partition).ok()?));
    match found {
        None => Destination::Gone,
        Some(found) => found.leader.map_or(Destination::Nobody, |leader| Destination::Broker(leader.0)),
    }
}

struct Delivery {
    replicas: Arc<ReplicaManager>,
    groups: Arc<GroupService>,
    timeout: Duration,
    tasks: tokio_util::task::TaskTracker,
    stopping: CancellationToken,
}

impl Delivery {
    /// Hands each partition's marker to the task of its leader.
    async fn sort(self: Arc<Self>, mut jobs: mpsc::UnboundedReceiver<(Arc<Shard>, SendMarkers)>) {
        let mut destinations: HashMap<i32, mpsc::UnboundedSender<Job>> = HashMap::new();
        let own_id = self.replicas.shared().options.broker_id;
        while let Some((shard, markers)) = jobs.recv().await {
            let image = self.replicas.image();
            let mut by_broker: HashMap<i32, Vec<TopicPartition>> = HashMap::new();
            let mut outcomes = Vec::new();
            let marker = EndMarker {
                producer_id: markers.producer_id,
                producer_epoch: markers.producer_epoch,
                commit: markers.commit,
                coordinator_epoch: markers.coordinator_epoch,
                raises_epoch: markers.transaction_version.supports_epoch_bump(),
            };
            for partition in markers.partitions {
                match destination(&image, &partition) {
                    Destination::Gone => outcomes.push((partition, MarkerOutcome::Gone)),
                    Destination::Nobody => outcomes.push((partition, MarkerOutcome::NoAnswer)),
                    Destination::Broker(broker) => by_broker.entry(broker).or_default().push(partition),
                }
            }
            if !outcomes.is_empty() {
                shard.markers_answered(markers.token, &outcomes);
            }
            for (broker, partitions) in by_broker {
                let job = Job {
                    shard: Arc::clone(&shard),
                    token: markers.token,
                    marker,
                    transaction_version: i8::try_from(markers.transaction_version.0).unwrap_or(0),
                    partitions,
                };
                if broker == own_id {
                    self.write_here(job);
                    continue;
                }
                let queue = destinations.entry(broker).or_insert_with(|| self.destination(broker));
                // Its task ends only with the broker.
                drop(queue.send(job));
            }
        }
    }

    fn write_here(&self, job: Job) {
        let begun = WrittenMarkers::begin(&self.replicas, &self.groups, job.marker, &job.partitions);
        let (groups, timeout) = (Arc::clone(&self.groups), self.timeout);
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            let written = tokio::select! {
                written = begun.finish(&groups, timeout) => written,
                () = stopping.cancelled() => return,
            };
            let answered = |(partition, error)| (partition, MarkerOutcome::Answered(error));
            job.answered(&written.into_iter().map(answered).collect::<Vec<_>>());
        });
    }

    fn destination(self: &Arc<Self>, broker: i32) -> mpsc::UnboundedSender<Job> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (delivery, stopping) = (Arc::clone(self), self.stopping.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = delivery.serve(broker, receiver) => {}
                () = stopping.cancelled() => {}
            }
        });
        sender
    }

    /// One broker's markers, a request at a time.
    async fn serve(&self, broker: i32, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut connection: Option<Peer> = None;
        let mut batch = Vec::new();
        while jobs.recv_many(&mut batch, MARKERS_PER_REQUEST_MAX).await > 0 {
            let answer = match self.ask(broker, &mut connection, &batch).await {
                Ok(answer) => answer,
                Err(error) => {
                    connection = None;
                    if let Some(error) = error {
                        tracing::warn!(broker, %error, "markers could not be sent; trying again");
                    }
                    batch.drain(..).for_each(|job| job.no_answer());
                    continue;
                }
            };
            for (index, job) in batch.drain(..).enumerate() {
                match outcomes(&job, answer.markers.get(index)) {
                    Some(outcomes) => job.answered(&outcomes),
                    None => job.no_answer(),
                }
            }
        }
    }

    /// Fails without a reason when the broker has no address, or is dead while its answer is awaited.
    async fn ask(
        &self,
        broker: i32,
        connection: &mut Option<Peer>,
        jobs: &[Job],
    ) -> Result<WriteTxnMarkersResponse, Option<PeerError>> {
        let request = WriteTxnMarkersRequest { markers: jobs.iter().map(marker_of).collect() };
        let asking = async {
            let peer = match connection {
                Some(peer) => peer,
                None => connection.insert(self.connect(broker).await?),
            };
            peer.call(&request, WRITE_MARKERS_VERSION).await.map_err(Some)
        };
        let died = async {
            while self.is_alive(broker) {
                tokio::time::sleep(ALIVE_CHECK).await;
            }
        };
        tokio::select! {
            answer = asking => answer,
            () = died => Err(None),
        }
    }

    fn is_alive(&self, broker: i32) -> bool {
        self.replicas.image().broker(broker.into()).is_some_and(|broker| !broker.fenced)
    }

    async fn connect(&self, broker: i32) -> Result<Peer, Option<PeerError>> {
        let (host, port) = self.replicas.broker_endpoint(broker).ok_or(None)?;
        let security = &self.replicas.shared().options.peer_security;
        Peer::connect(&host, port, "ottla-markers", self.timeout, security).await.map_err(Some)
    }
}

fn marker_of(job: &Job) -> Marker {
    let mut topics: Vec<Topic> = Vec::new();
    for partition in &job.partitions {
        match topics.last_mut() {
            Some(topic) if topic.name == partition.topic => topic.partition_indexes.push(partition.partition),
            _ => topics
                .push(Topic { name: partition.topic.clone(), partition_indexes: vec![partition.partition] }),
        }
    }
    Marker {
        producer_id: job.marker.producer_id,
        producer_epoch: job.marker.producer_epoch,
        transaction_result: job.marker.commit,
        coordinator_epoch: job.marker.coordinator_epoch,
        transaction_version: job.transaction_version,
        topics,
    }
}

/// What the answer says of each partition that was asked for; none: it is about somebody else.
fn outcomes(
    job: &Job,
    answer: Option<&ottla_wire::messages::write_txn_markers_response::Marker>,
) -> Option<Vec<(TopicPartition, MarkerOutcome)>> {
    let answer = answer.filter(|answer| answer.producer_id == job.marker.producer_id)?;
    let mut codes: HashMap<(&Text, i32), i16> = HashMap::new();
    for topic in &answer.topics {
        codes.extend(topic.partitions.iter().map(|p| ((&topic.name, p.partition_index), p.error_code)));
    }
    let outcome = |partition: &TopicPartition| {
        let code = codes.get(&(&partition.topic, partition.partition));
        let outcome =
            code.map_or(MarkerOutcome::NoAnswer, |code| MarkerOutcome::Answered(ErrorCode::from_code(*code)));
        (partition.clone(), outcome)
    };
    Some(job.partitions.iter().map(outcome).collect())
}

/// A marker that is in the log, or what the log has in its place.
struct Open {
    index: usize,
    replica: Arc<Partition>,
    appended: AppendedRecords,
    /// What is answered when that is committed.
    then: ErrorCode,
}

/// Markers of one transaction in the logs of this broker, whose commit is still to come.
pub(crate) struct WrittenMarkers {
    outcomes: Vec<(TopicPartition, ErrorCode)>,
    open: Vec<Open>,
    waiter: Arc<Waiter>,
}

impl WrittenMarkers {
    /// Appends, in the order of the caller. The group coordinator is told at once: the answer may have nobody any more who
    /// waits for it, and whoever asks again is told only that the marker is there.
    pub(crate) fn begin(
        replicas: &ReplicaManager,
        groups: &GroupService,
        marker: EndMarker,
        partitions: &[TopicPartition],
    ) -> Self {
        let mut outcomes = Vec::with_capacity(partitions.len());
        let mut open = Vec::new();
        for (index, partition) in partitions.iter().enumerate() {
            let replica = replicas
                .topic_by_name(&partition.topic)
                .ok_or(ErrorCode::UnknownTopicOrPartition)
                .and_then(|topic| topic.partition(partition.partition));
            let error = match replica {
                Ok(replica) => {
                    let (then, appended) = match replica.append_marker(marker, Clock::wall_ms()) {
                        Ok(appended) => {
                            if partition.topic == CONSUMER_OFFSETS {
                                let EndMarker { producer_id, commit, .. } = marker;
                                let written = WrittenMarker { appended, producer_id, commit };
                                groups.marker_appended(partition.partition, written);
                            }
                            (ErrorCode::None, Some(appended))
                        }
                        Err(refused) => (refused.code, refused.known),
                    };
                    open.extend(appended.map(|appended| Open { index, replica, appended, then }));
                    then
                }
                Err(error) => error,
            };
            outcomes.push((partition.clone(), error));
        }
        let waiter = Waiter::new(open.len());
        Self { outcomes, open, waiter }
    }

    /// Waits until every in-sync replica has them; the offsets that the transaction commits count from then on.
    pub(crate) async fn finish(
        mut self,
        groups: &GroupService,
        timeout: Duration,
    ) -> Vec<(TopicPartition, ErrorCode)> {
        for open in &self.open {
            if open.replica.await_ack(&open.appended, &self.waiter) != AckState::Pending {
                self.waiter.complete_one();
            }
        }
        self.waiter.wait_at_most(timeout).await;
        for open in &self.open {
            let standing = open.replica.ack_result(&open.appended);
            let error = match standing {
                AckState::Done => open.then,
                AckState::Pending => ErrorCode::RequestTimedOut,
                AckState::Failed(code) => code,
            };
            let Some((partition, outcome)) = self.outcomes.get_mut(open.index) else { continue };
            *outcome = error;
            if matches!(standing, AckState::Done) && partition.topic == CONSUMER_OFFSETS {
                groups.settle(partition.partition);
            }
        }
        self.outcomes
    }
}
