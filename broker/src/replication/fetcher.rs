//! Followers of this broker fetch from their leaders: one task per leader broker, with one connection and one incremental
//! fetch session that carries every partition led there.
//!
//! A fetch waits at the leader until a partition has news. What changes meanwhile on this side (a new partition, one whose
//! pause is over) is sent ahead as the session's next request: the leader ends the waiting one for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_replica::follower::EpochEnd;
use ottla_wire::encode::Records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{FetchRequest, FetchResponse, fetch_request, fetch_response};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::peer::{Peer, PeerError};
use super::session::{FollowerSession, SessionRequest};
use crate::replica::follow::{FetchPosition, FollowError};
use crate::replica::manager::ReplicaManager;
use crate::replica::partition::Partition;
use crate::replica::shared::{PartitionId, WorkQueue};

/// The version that followers speak: topic ids, broker epochs, diverging epochs, log directories.
const FETCH_VERSION: i16 = 17;

/// First pause of a partition whose leader refused it; doubles up to `replica.fetch.backoff.ms`. Short, because mostly the
/// leader's image is only a few milliseconds behind.
const PAUSE_MS_MIN: u64 = 10;

/// A fetcher that is held back by the throttle of moves looks at it again this often.
const THROTTLE_CHECK_MS: u64 = 1_000;

/// Requests that may be on their way at once: one that waits at the leader, and one that brings it changes.
const IN_FLIGHT_MAX: usize = 2;

/// Starts, feeds and stops the fetchers, as partitions get and lose leaders. Returns when cancelled, after all fetchers have
/// ended.
pub async fn run(manager: Arc<ReplicaManager>, stop: CancellationToken) {
    let mut fetchers: HashMap<i32, Running> = HashMap::new();
    let mut leader_of: HashMap<PartitionId, i32> = HashMap::new();
    loop {
        let changes = tokio::select! {
            () = stop.cancelled() => break,
            changes = manager.shared().following.take() => changes,
        };
        for (id, following) in changes {
            if let Some(earlier) = leader_of.remove(&id)
                && earlier != following.leader
                && let Some(fetcher) = fetchers.get(&earlier)
            {
                fetcher.inbox.put(id, None);
            }
            if following.leader < 0 {
                continue;
            }
            leader_of.insert(id, following.leader);
            let fetcher = fetchers.entry(following.leader).or_insert_with(|| {
                Running::start(Arc::clone(&manager), following.leader, stop.child_token())
            });
            fetcher.inbox.put(id, Some(following.leader_epoch));
        }
    }
    for (_, fetcher) in fetchers {
        fetcher.stop.cancel();
        if let Err(error) = fetcher.task.await {
            tracing::error!(%error, "a fetcher ended by a fault");
        }
    }
}

/// A fetcher's task and its mailbox: partition -> leader epoch, or none to stop.
struct Running {
    inbox: Arc<WorkQueue<Option<i32>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(manager: Arc<ReplicaManager>, leader: i32, stop: CancellationToken) -> Self {
        let inbox = Arc::new(WorkQueue::default());
        let fetcher = Fetcher {
            manager,
            leader,
            inbox: Arc::clone(&inbox),
            followed: HashMap::new(),
            session: FollowerSession::default(),
            failures: 0,
        };
        let token = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = fetcher.run() => {}
            }
        });
        Self { inbox, stop, task }
    }
}

/// A partition that is fetched.
struct Followed {
    partition: Arc<Partition>,
    leader_epoch: i32,
    /// Not before this time.
    paused_until: Option<Instant>,
    pause_ms: u64,
    /// The pause is one of the throttle.
    is_throttled: bool,
}

struct Fetcher {
    manager: Arc<ReplicaManager>,
    leader: i32,
    inbox: Arc<WorkQueue<Option<i32>>>,
    followed: HashMap<PartitionId, Followed>,
    session: FollowerSession,
    /// Failures of the connection in a row.
    failures: u32,
}

impl Fetcher {
    async fn run(mut self) {
        loop {
            if self.followed.is_empty() {
                self.failures = 0;
                let changes = self.inbox.take().await;
                self.change(changes);
                continue;
            }
            match self.connect_and_fetch().await {
                Ok(()) => self.failures = 0,
                Err(error) => {
                    self.manager.shared().counters.fetch_failures.add(1);
                    if self.failures == 0 {
                        if matches!(error, PeerError::Io { .. }) {
                            self.manager.shared().unreachable.broke(self.leader);
                        }
                        tracing::warn!(leader = self.leader, %error, "fetching from a leader failed; it is tried again");
                    }
                    self.failures = self.failures.saturating_add(1);
                    tokio::time::sleep(self.pause_after_failure()).await;
                }
            }
            let changes = self.inbox.take_now();
            self.change(changes);
        }
    }

    fn pause_after_failure(&self) -> Duration {
        let backoff = self.manager.shared().options.replica_fetch_backoff_ms;
        Duration::from_millis((PAUSE_MS_MIN << self.failures.min(16)).min(backoff))
    }

    /// Fetches until nothing is followed (ok) or the connection fails.
    async fn connect_and_fetch(&mut self) -> Result<(), PeerError> {
        self.session.reset();
        let options = &self.manager.shared().options;
        let timeout = Duration::from_millis(options.replica_socket_timeout_ms);
        let client_id = format!("broker-{}-fetcher", options.broker_id);
        let Some((host, port)) = self.manager.broker_endpoint(self.leader) else {
            return Err(PeerError::Protocol {
                peer: self.leader.to_string(),
                what: "it is not registered with an endpoint for brokers".to_owned(),
            });
        };
        let mut peer = Peer::connect(&host, port, &client_id, timeout, &options.peer_security).await?;
        self.learn_port();
        while !(self.followed.is_empty() && peer.unanswered_count() == 0) {
            let changes = self.inbox.take_now();
            self.change(changes);
            let next_pause_end = self.end_pauses();
            if self.may_send(&peer) {
                let request = self.request();
                peer.send(&request, FETCH_VERSION).await?;
                continue;
            }
            if peer.unanswered_count() == 0 {
                // All are paused.
                self.wait_for_changes(next_pause_end).await;
                continue;
            }
            let has_room = peer.unanswered_count() < IN_FLIGHT_MAX;
            tokio::select! {
                response = peer.receive::<FetchRequest>(FETCH_VERSION) => {
                    // A lost session: requests of it may be on their way, so that a new connection is simplest.
                    self.answered(response?).await.map_err(|error| PeerError::Protocol {
                        peer: format!("{host}:{port}"),
                        what: format!("the fetch session was refused: {}", error.name()),
                    })?;
                    if self.failures > 0 {
                        self.failures = 0;
                        self.manager.shared().unreachable.answered(self.leader);
                    }
                }
                changes = self.inbox.take(), if has_room => self.change(changes),
                () = sleep_until(next_pause_end), if has_room => {}
            }
        }
        Ok(())
    }

    /// The leader's port lets this broker in, or does not: from then on it tells something when it refuses.
    fn learn_port(&self) {
        let image = self.manager.image();
        let Some(registration) = image.broker(self.leader.into()) else { return };
        let (leader, address) = (self.leader, registration.grpc_endpoint.clone());
        if !address.is_empty() {
            let shared = Arc::clone(self.manager.shared());
            tokio::spawn(async move { shared.unreachable.dial(leader, &address).await });
        }
    }

    /// The next fetch, or one that is sent ahead because the leader has to hear of changes.
    fn may_send(&self, peer: &Peer) -> bool {
        match peer.unanswered_count() {
            0 => !self.session.is_empty() || self.session.is_established() && self.session.has_changes(),
            count => count < IN_FLIGHT_MAX && self.session.is_established() && self.session.has_changes(),
        }
    }

    async fn wait_for_changes(&mut self, until: Option<Instant>) {
        tokio::select! {
            changes = self.inbox.take() => self.change(changes),
            () = sleep_until(until) => {}
        }
    }

    fn change(&mut self, changes: HashMap<PartitionId, Option<i32>>) {
        for (id, leader_epoch) in changes {
            let found = leader_epoch.and_then(|epoch| Some((epoch, self.manager.by_id(id)?)));
            let Some((leader_epoch, partition)) = found else {
                self.followed.remove(&id);
                self.session.drop(id);
                continue;
            };
            let followed = Followed {
                partition,
                leader_epoch,
                paused_until: None,
                pause_ms: PAUSE_MS_MIN,
                is_throttled: false,
            };
            let position = followed.partition.fetch_position(leader_epoch);
            self.followed.insert(id, followed);
            self.went_on(id, position);
        }
    }

    /// Puts partitions back whose pause is over; gives the end of the next one.
    fn end_pauses(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let throttled_until = throttled_until(&self.manager, now);
        let mut ended = Vec::new();
        let mut next: Option<Instant> = None;
        for (id, followed) in &mut self.followed {
            match followed.paused_until {
                Some(until) if until <= now && throttled_until.is_some() && followed.is_throttled => {
                    followed.paused_until = throttled_until;
                    next = [next, throttled_until].into_iter().flatten().min();
                }
                Some(until) if until <= now => {
                    followed.is_throttled = false;
                    followed.paused_until = None;
                    ended.push((*id, followed.partition.fetch_position(followed.leader_epoch)));
                }
                Some(until) => next = Some(next.map_or(until, |other| other.min(until))),
                None => {}
            }
        }
        for (id, position) in ended {
            self.went_on(id, position);
        }
        next
    }

    /// Takes a partition's new position, or what became of it.
    fn went_on(&mut self, id: PartitionId, position: Result<FetchPosition, FollowError>) {
        match position {
            Ok(position) => self.session.want(id, position),
            Err(FollowError::Outdated(_) | FollowError::Offline) => {
                self.followed.remove(&id);
                self.session.drop(id);
            }
            Err(FollowError::Refused(why)) => {
                tracing::warn!(
                    ?id,
                    leader = self.leader,
                    why,
                    "a fetched batch was refused; it is fetched again"
                );
                self.pause(id);
            }
        }
    }

    fn pause(&mut self, id: PartitionId) {
        self.session.drop(id);
        let backoff = self.manager.shared().options.replica_fetch_backoff_ms;
        if let Some(followed) = self.followed.get_mut(&id) {
            followed.paused_until = Some(Instant::now() + Duration::from_millis(followed.pause_ms));
            followed.pause_ms = (followed.pause_ms * 2).min(backoff.max(PAUSE_MS_MIN));
        }
    }

    fn request(&mut self) -> FetchRequest {
        let SessionRequest { session_id, session_epoch, asked, forgotten } = self.session.next_request();
        let shared = self.manager.shared();
        let options = &shared.options;
        let mut request = FetchRequest {
            max_wait_ms: options.replica_fetch_wait_ms_max,
            min_bytes: options.replica_fetch_bytes_min,
            max_bytes: options.replica_fetch_response_bytes_max,
            session_id,
            session_epoch,
            ..FetchRequest::default()
        };
        request.replica_state.replica_id = options.broker_id;
        request.replica_state.replica_epoch = shared.grant.broker_epoch();
        // In order of topics: consecutive partitions of a topic share its entry.
        for (id, position) in asked {
            let partition = fetch_request::Partition {
                partition: id.index,
                current_leader_epoch: position.leader_epoch,
                fetch_offset: position.offset,
                last_fetched_epoch: position.last_fetched_epoch,
                log_start_offset: position.log_start_offset,
                partition_max_bytes: options.replica_fetch_partition_bytes_max,
                ..Default::default()
            };
            match request.topics.last_mut() {
                Some(topic) if topic.topic_id == id.topic_id => topic.partitions.push(partition),
                _ => request.topics.push(fetch_request::Topic {
                    topic_id: id.topic_id,
                    partitions: vec![partition],
                    ..Default::default()
                }),
            }
        }
        for id in forgotten {
            request.forgotten_topics_data.push(fetch_request::ForgottenTopicsData {
                topic_id: id.topic_id,
                partitions: vec![id.index],
                ..Default::default()
            });
        }
        request
    }

    async fn answered(&mut self, response: FetchResponse) -> Result<(), ErrorCode> {
        let error = ErrorCode::from_code(response.error_code);
        if error != ErrorCode::None {
            return Err(error);
        }
        self.session.answered(response.session_id);
        let mut to_sync = Vec::new();
        for topic in response.responses {
            for answer in topic.partitions {
                let id = PartitionId { topic_id: topic.topic_id, index: answer.partition_index };
                let has_records = self.answered_partition(id, answer);
                if has_records
                    && let Some(followed) = self.followed.get(&id)
                    && followed.partition.rules().is_synced_only()
                {
                    to_sync.push((id, Arc::clone(&followed.partition), followed.leader_epoch));
                }
            }
        }
        if !to_sync.is_empty() {
            self.sync(to_sync).await;
        }
        self.session.end_answer();
        Ok(())
    }

    /// With `flush.messages=1` the next fetch, which says what this broker has, waits for the disk.
    async fn sync(&mut self, partitions: Vec<(PartitionId, Arc<Partition>, i32)>) {
        let synced = tokio::task::spawn_blocking(move || {
            partitions
                .into_iter()
                .map(|(id, partition, leader_epoch)| {
                    partition.sync();
                    (id, partition.fetch_position(leader_epoch))
                })
                .collect::<Vec<_>>()
        })
        .await;
        for (id, position) in synced.unwrap_or_default() {
            self.went_on(id, position);
        }
    }

    /// Applies the answer for one partition; says whether it brought records.
    fn answered_partition(&mut self, id: PartitionId, answer: fetch_response::Partition) -> bool {
        if !self.session.is_answered(id) {
            return false;
        }
        let Some(followed) = self.followed.get_mut(&id) else { return false };
        let epoch = followed.leader_epoch;
        let mut has_records = false;
        let position = match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None if answer.diverging_epoch.end_offset >= 0 => {
                let diverging = EpochEnd {
                    epoch: answer.diverging_epoch.epoch,
                    end_offset: answer.diverging_epoch.end_offset,
                };
                followed.partition.truncate_to_leader(epoch, diverging)
            }
            ErrorCode::None => {
                let records = match answer.records {
                    Some(Records::Bytes(records)) => records,
                    _ => Bytes::new(),
                };
                has_records = !records.is_empty();
                let is_counted = has_records && followed.partition.rules().is_throttled_as_follower(id.index);
                if is_counted {
                    let shared = self.manager.shared();
                    let now_ms = shared.grant.clock().monotonic_ms();
                    shared.throttles.follower.count(now_ms, records.len() as u64);
                }
                let position = followed.partition.append_as_follower(
                    epoch,
                    &records,
                    answer.high_watermark,
                    answer.log_start_offset,
                );
                if position.is_ok() {
                    followed.pause_ms = PAUSE_MS_MIN;
                }
                // Who is in sync is not held back (KIP-73).
                let is_behind =
                    position.as_ref().is_ok_and(|position| position.offset < answer.high_watermark);
                if is_counted
                    && is_behind
                    && let Some(until) = throttled_until(&self.manager, Instant::now())
                {
                    followed.is_throttled = true;
                    followed.paused_until = Some(until);
                    self.session.drop(id);
                    return has_records;
                }
                position
            }
            ErrorCode::OffsetOutOfRange => {
                followed.partition.start_over(epoch, answer.log_start_offset.max(0))
            }
            error => {
                tracing::debug!(
                    ?id,
                    leader = self.leader,
                    error = error.name(),
                    "the leader refused a fetch"
                );
                self.pause(id);
                return false;
            }
        };
        self.went_on(id, position);
        has_records
    }
}

/// When the throttle may let partitions go on that catch up; none: now. It is asked again every second, because its rate may
/// change.
fn throttled_until(manager: &ReplicaManager, now: Instant) -> Option<Instant> {
    let shared = manager.shared();
    let (throttle, now_ms) = (&shared.throttles.follower, shared.grant.clock().monotonic_ms());
    let wait_ms = throttle.due_ms().saturating_sub(now_ms).min(THROTTLE_CHECK_MS);
    throttle.is_exceeded(now_ms).then(|| now + Duration::from_millis(wait_ms.max(1)))
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
