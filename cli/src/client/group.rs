//! A member of a classic consumer group: joins, leads the assignment when asked to, heartbeats, commits, leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{
    FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    OffsetCommitRequest, OffsetFetchRequest, Request, SyncGroupRequest, join_group_request,
    leave_group_request, offset_commit_request, offset_fetch_request, sync_group_request,
};
use ottla_wire::persisted::consumer_protocol_assignment::AssignedPartition;
use ottla_wire::persisted::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, decode_consumer_protocol, encode_value,
};
use ottla_wire::text::Text;

use super::ClientError;
use super::assignor;
use super::cluster::{Cluster, RETRY_PAUSE};
use super::offsets::TopicPartition;

/// A member that is silent for longer is put out of the group.
const SESSION_TIMEOUT_MS: i32 = 10_000;
/// How long the group waits for its members to join again.
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
/// How often a heartbeat is sent: a third of the session.
pub(crate) const HEARTBEAT_PAUSE: Duration = Duration::from_secs(3);
/// The assignment that all kinds of clients know.
const ASSIGNOR: &str = "range";
const PROTOCOL_TYPE: &str = "consumer";
/// Version of subscriptions and assignments that is written.
const CONSUMER_PROTOCOL_VERSION: i16 = 1;
// Newest versions that are asked: those that name topics and one group.
const FIND_COORDINATOR_VERSION: i16 = 3;
const JOIN_GROUP_VERSION: i16 = 7;
const SYNC_GROUP_VERSION: i16 = 5;
const HEARTBEAT_VERSION: i16 = 4;
const LEAVE_GROUP_VERSION: i16 = 4;
const OFFSET_COMMIT_VERSION: i16 = 8;
const OFFSET_FETCH_VERSION: i16 = 7;

/// How the group stands after a heartbeat or a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The member keeps what it has.
    Stable,
    /// It must join again.
    Rejoin,
}

/// A member.
#[derive(Debug)]
pub(crate) struct Member {
    cluster: Cluster,
    group: Text,
    topics: Vec<String>,
    coordinator: Option<String>,
    member_id: Text,
    generation: i32,
}

impl Member {
    /// Of no generation yet.
    pub(crate) fn new(cluster: Cluster, group: &str, topics: Vec<String>) -> Self {
        Self {
            cluster,
            group: Text::from(group),
            topics,
            coordinator: None,
            member_id: Text::new(),
            generation: -1,
        }
    }

    /// Joins, as often as the group asks for it; gives the partitions of this member.
    pub(crate) async fn join(&mut self) -> Result<Vec<TopicPartition>, ClientError> {
        let mut deadline = Instant::now() + self.cluster.timeout();
        loop {
            let error = match self.join_once().await {
                Ok(Some(partitions)) => return Ok(partitions),
                // The group moved on while we joined: it is alive, and the time starts anew.
                Ok(None) => {
                    deadline = Instant::now() + self.cluster.timeout();
                    continue;
                }
                Err(error) => error,
            };
            self.note(&error);
            if !error.is_retriable() || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn join_once(&mut self) -> Result<Option<Vec<TopicPartition>>, ClientError> {
        let joined = self.ask_within(&self.join_request()?, JOIN_GROUP_VERSION, REBALANCE_TIMEOUT_MS).await?;
        match ErrorCode::from_code(joined.error_code) {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => {
                self.member_id = joined.member_id;
                return Ok(None);
            }
            _ if self.starts_over(joined.error_code) => return Ok(None),
            _ => return Err(self.refused(joined.error_code)),
        }
        self.member_id = joined.member_id.clone();
        self.generation = joined.generation_id;
        let assignments =
            if joined.leader == joined.member_id { self.assign(&joined).await? } else { Vec::new() };
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            protocol_type: Some(Text::from_static(PROTOCOL_TYPE)),
            protocol_name: Some(Text::from_static(ASSIGNOR)),
            assignments,
            ..SyncGroupRequest::default()
        };
        let synced = self.ask_within(&request, SYNC_GROUP_VERSION, REBALANCE_TIMEOUT_MS).await?;
        if synced.error_code != 0 {
            return if self.starts_over(synced.error_code) {
                Ok(None)
            } else {
                Err(self.refused(synced.error_code))
            };
        }
        Ok(Some(read_assignment(&synced.assignment)))
    }

    fn join_request(&self) -> Result<JoinGroupRequest, ClientError> {
        let subscription = ConsumerProtocolSubscription {
            topics: self.topics.iter().map(|topic| Text::from(topic.as_str())).collect(),
            ..ConsumerProtocolSubscription::default()
        };
        let metadata = encode_value(&subscription, CONSUMER_PROTOCOL_VERSION)
            .map_err(|_| self.refused(ErrorCode::InvalidRequest.code()))?;
        Ok(JoinGroupRequest {
            group_id: self.group.clone(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member_id: self.member_id.clone(),
            protocol_type: Text::from_static(PROTOCOL_TYPE),
            protocols: vec![join_group_request::Protocol { name: Text::from_static(ASSIGNOR), metadata }],
            ..JoinGroupRequest::default()
        })
    }

    /// This member leads: it shares the partitions out.
    async fn assign(
        &mut self,
        joined: &JoinGroupResponse,
    ) -> Result<Vec<sync_group_request::Assignment>, ClientError> {
        let mut members = BTreeMap::new();
        for member in &joined.members {
            let subscription: ConsumerProtocolSubscription = decode_consumer_protocol(&member.metadata)
                .map_err(|error| ClientError::Garbled {
                    address: self.group.to_string(),
                    what: "a member's subscription",
                    reason: error.to_string(),
                })?;
            let topics: Vec<String> = subscription.topics.iter().map(ToString::to_string).collect();
            members.insert(member.member_id.to_string(), topics);
        }
        let mut topics: Vec<String> = members.values().flatten().cloned().collect();
        topics.sort_unstable();
        topics.dedup();
        let deadline = Instant::now() + self.cluster.timeout();
        let mut partitions = BTreeMap::new();
        for topic in topics {
            // A topic that another member wants and that does not exist must not stop the group.
            match self.cluster.refresh_until(std::slice::from_ref(&topic), deadline).await {
                Ok(()) | Err(ClientError::Refused { code: ErrorCode::UnknownTopicOrPartition, .. }) => {}
                Err(error) => return Err(error),
            }
            if let Some(known) = self.cluster.topic(&topic) {
                partitions.insert(topic, known.leaders.keys().copied().collect());
            }
        }
        assignor::range(&members, &partitions)
            .into_iter()
            .map(|(member, topics)| {
                let assignment = ConsumerProtocolAssignment {
                    assigned_partitions: topics
                        .into_iter()
                        .map(|(topic, partitions)| AssignedPartition { topic: Text::from(topic), partitions })
                        .collect(),
                    ..ConsumerProtocolAssignment::default()
                };
                let assignment = encode_value(&assignment, CONSUMER_PROTOCOL_VERSION)
                    .map_err(|_| self.refused(ErrorCode::InvalidRequest.code()))?;
                Ok(sync_group_request::Assignment { member_id: Text::from(member), assignment })
            })
            .collect()
    }

    /// Tells the group that this member lives.
    pub(crate) async fn heartbeat(&mut self) -> Result<Standing, ClientError> {
        let request = HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            ..HeartbeatRequest::default()
        };
        let answer = self.ask(&request, HEARTBEAT_VERSION).await.map(|answer| answer.error_code);
        self.standing(answer)
    }

    /// Where the group has come to; -1 where it has committed nothing.
    pub(crate) async fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        let topics = topics
            .into_iter()
            .map(|(name, partition_indexes)| offset_fetch_request::Topic {
                name: Text::from(name),
                partition_indexes,
            })
            .collect();
        let request = OffsetFetchRequest {
            group_id: self.group.clone(),
            topics: Some(topics),
            require_stable: true,
            ..OffsetFetchRequest::default()
        };
        let deadline = Instant::now() + self.cluster.timeout();
        loop {
            let error = match self.ask(&request, OFFSET_FETCH_VERSION).await {
                Ok(answer) => {
                    let mut code = answer.error_code;
                    let mut found = BTreeMap::new();
                    for topic in answer.topics {
                        let name: Arc<str> = Arc::from(&*topic.name);
                        for one in topic.partitions {
                            if one.error_code != 0 {
                                code = one.error_code;
                            }
                            found.insert((name.clone(), one.partition_index), one.committed_offset);
                        }
                    }
                    if code == 0 {
                        return Ok(found);
                    }
                    self.refused(code)
                }
                Err(error) => error,
            };
            self.note(&error);
            if !error.is_retriable() || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Commits the next offsets to be read.
    pub(crate) async fn commit(
        &mut self,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Standing, ClientError> {
        let mut topics: BTreeMap<&str, Vec<offset_commit_request::Partition>> = BTreeMap::new();
        for ((topic, partition_index), committed_offset) in offsets {
            topics.entry(topic).or_default().push(offset_commit_request::Partition {
                partition_index: *partition_index,
                committed_offset: *committed_offset,
                committed_metadata: Some(Text::new()),
                ..offset_commit_request::Partition::default()
            });
        }
        if topics.is_empty() {
            return Ok(Standing::Stable);
        }
        let topics = topics
            .into_iter()
            .map(|(name, partitions)| offset_commit_request::Topic {
                name: Text::from(name),
                partitions,
                ..offset_commit_request::Topic::default()
            })
            .collect();
        let request = OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member_id.clone(),
            topics,
            ..OffsetCommitRequest::default()
        };
        let answer = self.ask(&request, OFFSET_COMMIT_VERSION).await.map(|answer| {
            let codes = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code);
            { codes }.find(|code| *code != 0).unwrap_or(0)
        });
        self.standing(answer)
    }

    /// Leaves, so that the others need not wait for the session to end.
    pub(crate) async fn leave(&mut self) -> Result<(), ClientError> {
        if self.member_id.is_empty() {
            return Ok(());
        }
        let member = leave_group_request::Member { member_id: self.member_id.clone(), ..Default::default() };
        let request = LeaveGroupRequest {
            group_id: self.group.clone(),
            members: vec![member],
            member_id: self.member_id.clone(),
        };
        let answer = self.ask(&request, LEAVE_GROUP_VERSION).await?;
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None | ErrorCode::UnknownMemberId => Ok(()),
            _ => Err(self.refused(answer.error_code)),
        }
    }

    fn standing(&mut self, answer: Result<i16, ClientError>) -> Result<Standing, ClientError> {
        match answer {
            Ok(0) => Ok(Standing::Stable),
            Ok(code) if self.starts_over(code) => Ok(Standing::Rejoin),
            Ok(code) => {
                let error = self.refused(code);
                self.note(&error);
                // The coordinator moves or loads: the next heartbeat finds the new one; the session outlasts it.
                if error.is_retriable() { Ok(Standing::Stable) } else { Err(error) }
            }
            Err(error) if error.is_retriable() => {
                self.note(&error);
                Ok(Standing::Stable)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the code means that this member must join again; forgets what no longer holds.
    fn starts_over(&mut self, code: i16) -> bool {
        match ErrorCode::from_code(code) {
            ErrorCode::RebalanceInProgress => true,
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => {
                self.member_id = Text::new();
                self.generation = -1;
                true
            }
            _ => false,
        }
    }

    /// After a failure of the coordinator it is looked for anew.
    fn note(&mut self, error: &ClientError) {
        if error.is_retriable() {
            self.coordinator = None;
        }
    }

    fn refused(&self, code: i16) -> ClientError {
        ClientError::refused(format!("group \"{}\"", self.group), code)
    }

    async fn ask<R: Request>(&mut self, request: &R, newest: i16) -> Result<R::Response, ClientError> {
        self.ask_within(request, newest, 0).await
    }

    /// Asks the coordinator; it may hold the request for `held_ms`.
    async fn ask_within<R: Request>(
        &mut self,
        request: &R,
        newest: i16,
        held_ms: i32,
    ) -> Result<R::Response, ClientError> {
        let address = self.find_coordinator().await?;
        let limit = self.cluster.timeout() + Duration::from_millis(u64::from(held_ms.unsigned_abs()));
        self.cluster.ask_at_within(&address, request, newest, limit).await
    }

    async fn find_coordinator(&mut self) -> Result<String, ClientError> {
        if let Some(address) = &self.coordinator {
            return Ok(address.clone());
        }
        let request = FindCoordinatorRequest { key: self.group.clone(), ..FindCoordinatorRequest::default() };
        let found = self.cluster.ask_any(&request, FIND_COORDINATOR_VERSION).await?;
        if found.error_code != 0 {
            return Err(self.refused(found.error_code));
        }
        Ok(self.coordinator.insert(format!("{}:{}", found.host, found.port)).clone())
    }
}

/// An empty or unreadable assignment is none: the member waits for the next.
fn read_assignment(bytes: &Bytes) -> Vec<TopicPartition> {
    let Ok(assignment) = decode_consumer_protocol::<ConsumerProtocolAssignment>(bytes) else {
        return Vec::new();
    };
    let mut partitions = Vec::new();
    for topic in assignment.assigned_partitions {
        let name: Arc<str> = Arc::from(&*topic.topic);
        partitions.extend(topic.partitions.into_iter().map(|partition| (name.clone(), partition)));
    }
    partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        let mut member = Member::new(
            Cluster::new(crate::client::Bootstrap::default(), Duration::from_secs(1)),
            "g",
            vec!["t".into()],
        );
        member.member_id = Text::from_static("m");
        member.generation = 3;
        member.coordinator = Some("h:1".into());
        member
    }

    #[test]
    fn a_rebalance_keeps_the_member_and_a_lost_session_does_not() {
        let mut one = member();
        assert_eq!(one.standing(Ok(ErrorCode::RebalanceInProgress.code())).unwrap(), Standing::Rejoin);
        assert_eq!(&*one.member_id, "m");
        assert_eq!(one.standing(Ok(ErrorCode::UnknownMemberId.code())).unwrap(), Standing::Rejoin);
        assert_eq!((&*one.member_id, one.generation), ("", -1));
    }

    #[test]
    fn a_coordinator_that_moves_is_looked_for_and_a_refusal_ends() {
        let mut one = member();
        assert_eq!(one.standing(Ok(ErrorCode::NotCoordinator.code())).unwrap(), Standing::Stable);
        assert_eq!(one.coordinator, None);
        assert!(member().standing(Ok(ErrorCode::GroupAuthorizationFailed.code())).is_err());
    }

    #[test]
    fn an_assignment_is_read_and_nothing_is_none() {
        let assignment = ConsumerProtocolAssignment {
            assigned_partitions: vec![AssignedPartition {
                topic: Text::from_static("t"),
                partitions: vec![0, 2],
            }],
            ..ConsumerProtocolAssignment::default()
        };
        let bytes = encode_value(&assignment, CONSUMER_PROTOCOL_VERSION).unwrap();
        assert_eq!(read_assignment(&bytes), [("t".into(), 0), ("t".into(), 2)]);
        assert_eq!(read_assignment(&Bytes::new()), []);
    }
}
