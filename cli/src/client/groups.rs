//! Groups from outside: what `ottla group` asks of their coordinators, of Ottla and Apache Kafka alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{
    AlterShareGroupOffsetsRequest, ConsumerGroupDescribeRequest, DeleteGroupsRequest,
    DeleteShareGroupOffsetsRequest, DescribeGroupsRequest, DescribeShareGroupOffsetsRequest,
    FindCoordinatorRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    Request, ShareGroupDescribeRequest, StreamsGroupDescribeRequest, alter_share_group_offsets_request,
    consumer_group_describe_response, delete_share_group_offsets_request, describe_groups_response,
    describe_share_group_offsets_request, list_groups_response, offset_commit_request, offset_delete_request,
    share_group_describe_response, streams_group_describe_response,
};
use ottla_wire::persisted::{ConsumerProtocolAssignment, decode_consumer_protocol};
use ottla_wire::text::Text;

use super::ClientError;
use super::cluster::{Cluster, RETRY_PAUSE};
use super::offsets::{self, LATEST, TopicPartition};

// Newest versions that are asked: those that name topics and one group.
const FIND_COORDINATOR_VERSION: i16 = 3;
const LIST_GROUPS_VERSION: i16 = 5;
const DESCRIBE_GROUPS_VERSION: i16 = 6;
const CONSUMER_GROUP_DESCRIBE_VERSION: i16 = 1;
const STREAMS_GROUP_DESCRIBE_VERSION: i16 = 0;
const SHARE_GROUP_DESCRIBE_VERSION: i16 = 1;
const DESCRIBE_SHARE_GROUP_OFFSETS_VERSION: i16 = 1;
const ALTER_SHARE_GROUP_OFFSETS_VERSION: i16 = 0;
const DELETE_SHARE_GROUP_OFFSETS_VERSION: i16 = 0;
const DELETE_GROUPS_VERSION: i16 = 2;
const OFFSET_FETCH_VERSION: i16 = 7;
const OFFSET_COMMIT_VERSION: i16 = 8;
const OFFSET_DELETE_VERSION: i16 = 0;

/// The type of share groups.
const SHARE: &str = "share";

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) metadata: String,
    /// Of share groups, whose members finish records in any order: how many are left, if the coordinator knows.
    pub(crate) left: Option<i64>,
}

/// A member, of whichever protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupMember {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    /// Of the protocols of consumer and share groups only.
    pub(crate) epoch: Option<i32>,
    pub(crate) partitions: Vec<TopicPartition>,
}

/// A group as its coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) group_type: &'static str,
    pub(crate) state: String,
    /// Of the assignment: the members' protocol or the server's assignor; empty without members.
    pub(crate) assignor: String,
    pub(crate) coordinator: String,
    pub(crate) members: Vec<GroupMember>,
}

/// All groups of the cluster, by id; each broker lists those that it coordinates.
pub(crate) async fn list(
    cluster: &mut Cluster,
    states: &[String],
    types: &[String],
) -> Result<Vec<list_groups_response::Group>, ClientError> {
    cluster.refresh(&[]).await?;
    let texts = |words: &[String]| words.iter().map(|word| Text::from(word.as_str())).collect();
    let request = ListGroupsRequest { states_filter: texts(states), types_filter: texts(types) };
    let deadline = Instant::now() + cluster.timeout();
    let mut groups = BTreeMap::new();
    for broker in cluster.broker_ids() {
        let listed = loop {
            let answer = cluster.ask(broker, &request, LIST_GROUPS_VERSION).await?;
            let error = match answer.error_code {
                0 => break answer.groups,
                code => ClientError::refused(format!("groups of broker {broker}"), code),
            };
            if !error.is_retriable() || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        };
        groups.extend(listed.into_iter().map(|group| (group.group_id.to_string(), group)));
    }
    Ok(groups.into_values().collect())
}

/// One group's coordinator.
pub(crate) struct Coordinator<'a> {
    cluster: &'a mut Cluster,
    group: Text,
}

impl<'a> Coordinator<'a> {
    /// Of this group.
    pub(crate) fn new(cluster: &'a mut Cluster, group: &str) -> Self {
        Self { cluster, group: Text::from(group) }
    }

    /// As whichever kind of group it is; `None`: there is no such group.
    pub(crate) async fn describe(&mut self) -> Result<Option<Described>, ClientError> {
        let groups = vec![self.group.clone()];
        let request =
            ConsumerGroupDescribeRequest { group_ids: groups.clone(), include_authorized_operations: false };
        let read = |answer: &<ConsumerGroupDescribeRequest as Request>::Response| {
            answer.groups.first().map_or(0, |group| group.error_code)
        };
        match self.ask(&request, CONSUMER_GROUP_DESCRIBE_VERSION, read).await {
            Ok((answer, coordinator)) => {
                return Ok(answer.groups.into_iter().next().map(|group| consumer(group, coordinator)));
            }
            Err(error) if is_other_kind(&error) => {}
            Err(error) => return Err(error),
        }
        let request =
            StreamsGroupDescribeRequest { group_ids: groups.clone(), include_authorized_operations: false };
        let read = |answer: &<StreamsGroupDescribeRequest as Request>::Response| {
            answer.groups.first().map_or(0, |group| group.error_code)
        };
        match self.ask(&request, STREAMS_GROUP_DESCRIBE_VERSION, read).await {
            Ok((answer, coordinator)) => {
                return Ok(answer.groups.into_iter().next().map(|group| streams(group, coordinator)));
            }
            Err(error) if is_other_kind(&error) => {}
            Err(error) => return Err(error),
        }
        if let Some(described) = self.describe_share().await? {
            return Ok(Some(described));
        }
        let request = DescribeGroupsRequest { groups, include_authorized_operations: false };
        let read = |answer: &<DescribeGroupsRequest as Request>::Response| {
            answer.groups.first().map_or(0, |group| group.error_code)
        };
        match self.ask(&request, DESCRIBE_GROUPS_VERSION, read).await {
            Ok((answer, coordinator)) => {
                let group = answer.groups.into_iter().next().filter(|group| &*group.group_state != "Dead");
                Ok(group.map(|group| classic(group, coordinator)))
            }
            Err(ClientError::Refused { code: ErrorCode::GroupIdNotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As a share group; `None`: it is none, or the broker does not know of share groups.
    async fn describe_share(&mut self) -> Result<Option<Described>, ClientError> {
        let request = ShareGroupDescribeRequest {
            group_ids: vec![self.group.clone()],
            include_authorized_operations: false,
        };
        let read = |answer: &<ShareGroupDescribeRequest as Request>::Response| {
            answer.groups.first().map_or(0, |group| group.error_code)
        };
        match self.ask(&request, SHARE_GROUP_DESCRIBE_VERSION, read).await {
            Ok((answer, coordinator)) => {
                Ok(answer.groups.into_iter().next().map(|group| share(group, coordinator)))
            }
            Err(error) if is_other_kind(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the members of a share group go on: the first offset that is not finished, and how many are left.
    async fn share_offsets(&mut self) -> Result<BTreeMap<TopicPartition, Committed>, ClientError> {
        let group =
            describe_share_group_offsets_request::Group { group_id: self.group.clone(), topics: None };
        let request = DescribeShareGroupOffsetsRequest { groups: vec![group] };
        let read = |answer: &<DescribeShareGroupOffsetsRequest as Request>::Response| {
            answer.groups.first().map_or(0, |group| group.error_code)
        };
        let (answer, _) = self.ask(&request, DESCRIBE_SHARE_GROUP_OFFSETS_VERSION, read).await?;
        let mut offsets = BTreeMap::new();
        for topic in answer.groups.into_iter().flat_map(|group| group.topics) {
            let name: Arc<str> = Arc::from(&*topic.topic_name);
            for one in topic.partitions.into_iter().filter(|one| one.start_offset >= 0) {
                let left = Some(one.lag).filter(|lag| *lag >= 0);
                let key = (Arc::clone(&name), one.partition_index);
                offsets.insert(key, Committed { offset: one.start_offset, metadata: String::new(), left });
            }
        }
        Ok(offsets)
    }

    /// Sets where the members of a share group go on; only one without members takes that.
    async fn alter_share(&mut self, offsets: &BTreeMap<TopicPartition, i64>) -> Result<(), ClientError> {
        let mut topics: BTreeMap<&str, Vec<alter_share_group_offsets_request::Partition>> = BTreeMap::new();
        for ((topic, partition_index), start_offset) in offsets {
            topics.entry(topic).or_default().push(alter_share_group_offsets_request::Partition {
                partition_index: *partition_index,
                start_offset: *start_offset,
            });
        }
        let topics = topics.into_iter().map(|(name, partitions)| alter_share_group_offsets_request::Topic {
            topic_name: Text::from(name),
            partitions,
        });
        let request =
            AlterShareGroupOffsetsRequest { group_id: self.group.clone(), topics: topics.collect() };
        let read = |answer: &<AlterShareGroupOffsetsRequest as Request>::Response| {
            let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
            let mut codes = partitions.map(|one| one.error_code);
            if answer.error_code != 0 {
                answer.error_code
            } else {
                codes.find(|code| *code != 0).unwrap_or(0)
            }
        };
        self.ask(&request, ALTER_SHARE_GROUP_OFFSETS_VERSION, read).await.map(drop)
    }

    /// A share group without members forgets whole topics; gives a code for each partition that was refused.
    async fn delete_share_offsets(
        &mut self,
        partitions: &BTreeSet<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, ErrorCode>, ClientError> {
        let names: BTreeSet<&str> = partitions.iter().map(|(topic, _)| &**topic).collect();
        let topic = |name: &str| delete_share_group_offsets_request::Topic { topic_name: Text::from(name) };
        let request = DeleteShareGroupOffsetsRequest {
            group_id: self.group.clone(),
            topics: names.into_iter().map(topic).collect(),
        };
        let (answer, _) =
            self.ask(&request, DELETE_SHARE_GROUP_OFFSETS_VERSION, |answer| answer.error_code).await?;
        let mut refused = BTreeMap::new();
        for topic in answer.responses.iter().filter(|topic| topic.error_code != 0) {
            let of_topic = partitions.iter().filter(|(name, _)| **name == *topic.topic_name);
            let code = ErrorCode::from_code(topic.error_code);
            refused.extend(of_topic.map(|partition| (partition.clone(), code)));
        }
        Ok(refused)
    }

    /// Everything that the group has committed; of a share group where its members go on.
    pub(crate) async fn committed(&mut self) -> Result<BTreeMap<TopicPartition, Committed>, ClientError> {
        let request = OffsetFetchRequest { group_id: self.group.clone(), topics: None, ..Default::default() };
        let (answer, _) = self.ask(&request, OFFSET_FETCH_VERSION, |answer| answer.error_code).await?;
        let mut committed = BTreeMap::new();
        for topic in answer.topics {
            let name: Arc<str> = Arc::from(&*topic.name);
            for one in topic.partitions.into_iter().filter(|one| one.committed_offset >= 0) {
                let metadata = one.metadata.map(|metadata| metadata.to_string()).unwrap_or_default();
                let key = (Arc::clone(&name), one.partition_index);
                committed.insert(key, Committed { offset: one.committed_offset, metadata, left: None });
            }
        }
        if committed.is_empty() {
            return match self.share_offsets().await {
                Err(error) if is_other_kind(&error) => Ok(committed),
                outcome => outcome,
            };
        }
        Ok(committed)
    }

    /// Commits offsets as nobody's member: only a group without members takes them.
    pub(crate) async fn commit(
        &mut self,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<(), ClientError> {
        let mut topics: BTreeMap<&str, Vec<offset_commit_request::Partition>> = BTreeMap::new();
        for ((topic, partition_index), committed_offset) in offsets {
            topics.entry(topic).or_default().push(offset_commit_request::Partition {
                partition_index: *partition_index,
                committed_offset: *committed_offset,
                committed_metadata: Some(Text::new()),
                ..Default::default()
            });
        }
        let topics = topics.into_iter().map(|(name, partitions)| offset_commit_request::Topic {
            name: Text::from(name),
            partitions,
            ..Default::default()
        });
        let request = OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: -1,
            topics: topics.collect(),
            ..Default::default()
        };
        let read = |answer: &<OffsetCommitRequest as Request>::Response| {
            let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|one| one.error_code).find(|code| *code != 0).unwrap_or(0)
        };
        match self.ask(&request, OFFSET_COMMIT_VERSION, read).await {
            // Others make a group of whom there is none.
            Err(ClientError::Refused { code: ErrorCode::GroupIdNotFound, .. }) => {
                self.alter_share(offsets).await
            }
            outcome => outcome.map(drop),
        }
    }

    /// Deletes the group with its offsets.
    pub(crate) async fn delete(&mut self) -> Result<(), ClientError> {
        let request = DeleteGroupsRequest { groups_names: vec![self.group.clone()] };
        let read = |answer: &<DeleteGroupsRequest as Request>::Response| {
            answer.results.first().map_or(0, |result| result.error_code)
        };
        self.ask(&request, DELETE_GROUPS_VERSION, read).await.map(drop)
    }

    /// Deletes offsets of these partitions; gives a code for each that was refused.
    pub(crate) async fn delete_offsets(
        &mut self,
        partitions: &BTreeSet<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, ErrorCode>, ClientError> {
        let mut topics: BTreeMap<&str, Vec<offset_delete_request::Partition>> = BTreeMap::new();
        for (topic, partition_index) in partitions {
            let partition = offset_delete_request::Partition { partition_index: *partition_index };
            topics.entry(topic).or_default().push(partition);
        }
        let topics = topics
            .into_iter()
            .map(|(name, partitions)| offset_delete_request::Topic { name: Text::from(name), partitions });
        let request = OffsetDeleteRequest { group_id: self.group.clone(), topics: topics.collect() };
        let asked = self.ask(&request, OFFSET_DELETE_VERSION, |answer| answer.error_code).await;
        let (answer, _) = match asked {
            Err(ClientError::Refused { code: ErrorCode::GroupIdNotFound, .. }) => {
                return self.delete_share_offsets(partitions).await;
            }
            outcome => outcome?,
        };
        let mut refused = BTreeMap::new();
        for topic in answer.topics {
            for one in topic.partitions.iter().filter(|one| one.error_code != 0) {
                let key = (Arc::from(&*topic.name), one.partition_index);
                refused.insert(key, ErrorCode::from_code(one.error_code));
            }
        }
        Ok(refused)
    }

    /// Asks the coordinator, and the next one when it moves; `read` gives the answer's code. Also tells where it is.
    async fn ask<R: Request>(
        &mut self,
        request: &R,
        newest: i16,
        read: impl Fn(&R::Response) -> i16,
    ) -> Result<(R::Response, String), ClientError> {
        let deadline = Instant::now() + self.cluster.timeout();
        loop {
            let error = match self.try_ask(request, newest).await {
                Ok((answer, address)) => match read(&answer) {
                    0 => return Ok((answer, address)),
                    code => ClientError::refused(format!("group \"{}\"", self.group), code),
                },
                Err(error) => error,
            };
            if !error.is_retriable() || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn try_ask<R: Request>(
        &mut self,
        request: &R,
        newest: i16,
    ) -> Result<(R::Response, String), ClientError> {
        let find = FindCoordinatorRequest { key: self.group.clone(), ..Default::default() };
        let found = self.cluster.ask_any(&find, FIND_COORDINATOR_VERSION).await?;
        if found.error_code != 0 {
            return Err(ClientError::refused(format!("group \"{}\"", self.group), found.error_code));
        }
        let address = format!("{}:{}", found.host, found.port);
        let answer = self.cluster.ask_at(&address, request, newest).await?;
        Ok((answer, address))
    }
}

/// There is no such group of the kind that was asked for; a broker that does not know the kind has none either.
fn is_other_kind(error: &ClientError) -> bool {
    let unknown = [ErrorCode::GroupIdNotFound, ErrorCode::UnsupportedVersion];
    match error {
        ClientError::Version { .. } => true,
        ClientError::Refused { code, .. } => unknown.contains(code),
        _ => false,
    }
}

/// A member's partitions are those that its active tasks read.
fn streams(group: streams_group_describe_response::Group, coordinator: String) -> Described {
    let subtopologies = group.topology.and_then(|topology| topology.subtopologies).unwrap_or_default();
    let read_by = |id: &Text| {
        let found = subtopologies.iter().filter(|subtopology| subtopology.subtopology_id == *id);
        let topics = found.flat_map(|subtopology| {
            let internal = subtopology.repartition_source_topics.iter().map(|topic| &topic.name);
            subtopology.source_topics.iter().chain(internal)
        });
        topics.cloned().collect::<Vec<Text>>()
    };
    let member = |member: streams_group_describe_response::Member| {
        let tasks = member.assignment.active_tasks.iter();
        let read = tasks.flat_map(|tasks| {
            let topics = read_by(&tasks.subtopology_id).into_iter();
            topics.flat_map(|topic| partitions(&topic, tasks.partitions.clone()))
        });
        GroupMember {
            partitions: read.collect(),
            member_id: member.member_id.to_string(),
            instance_id: member.instance_id.map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            epoch: Some(member.member_epoch),
        }
    };
    Described {
        group_type: "streams",
        state: group.group_state.to_string(),
        // The only one that there is.
        assignor: if group.members.is_empty() { String::new() } else { "sticky".to_owned() },
        coordinator,
        members: group.members.into_iter().map(member).collect(),
    }
}

fn consumer(group: consumer_group_describe_response::Group, coordinator: String) -> Described {
    let member = |member: consumer_group_describe_response::Member| {
        let topics = member.assignment.topic_partitions.into_iter();
        GroupMember {
            member_id: member.member_id.to_string(),
            instance_id: member.instance_id.map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            epoch: Some(member.member_epoch),
            partitions: topics.flat_map(|topic| partitions(&topic.topic_name, topic.partitions)).collect(),
        }
    };
    Described {
        group_type: "consumer",
        state: group.group_state.to_string(),
        assignor: group.assignor_name.to_string(),
        coordinator,
        members: group.members.into_iter().map(member).collect(),
    }
}

fn share(group: share_group_describe_response::Group, coordinator: String) -> Described {
    let member = |member: share_group_describe_response::Member| {
        let topics = member.assignment.topic_partitions.into_iter();
        GroupMember {
            member_id: member.member_id.to_string(),
            instance_id: None,
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            epoch: Some(member.member_epoch),
            partitions: topics.flat_map(|topic| partitions(&topic.topic_name, topic.partitions)).collect(),
        }
    };
    Described {
        group_type: SHARE,
        state: group.group_state.to_string(),
        assignor: group.assignor_name.to_string(),
        coordinator,
        members: group.members.into_iter().map(member).collect(),
    }
}

fn classic(group: describe_groups_response::Group, coordinator: String) -> Described {
    let of_consumers = &*group.protocol_type == "consumer";
    let member = |member: describe_groups_response::Member| {
        // What is no consumer's assignment only its own clients can read.
        let assignment = of_consumers.then_some(&member.member_assignment).filter(|bytes| !bytes.is_empty());
        let assignment =
            assignment.and_then(|bytes| decode_consumer_protocol::<ConsumerProtocolAssignment>(bytes).ok());
        let topics = assignment.map(|assignment| assignment.assigned_partitions).unwrap_or_default();
        GroupMember {
            member_id: member.member_id.to_string(),
            instance_id: member.group_instance_id.map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            epoch: None,
            partitions: topics
                .into_iter()
                .flat_map(|topic| partitions(&topic.topic, topic.partitions))
                .collect(),
        }
    };
    Described {
        group_type: "classic",
        state: group.group_state.to_string(),
        assignor: group.protocol_data.to_string(),
        coordinator,
        members: group.members.into_iter().map(member).collect(),
    }
}

fn partitions(topic: &str, numbers: Vec<i32>) -> Vec<TopicPartition> {
    let name: Arc<str> = Arc::from(topic);
    numbers.into_iter().map(|number| (Arc::clone(&name), number)).collect()
}

/// Where partitions end; those of topics that are gone are left out.
pub(crate) async fn ends(
    cluster: &mut Cluster,
    partitions: impl Iterator<Item = TopicPartition>,
) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
    let mut by_topic: BTreeMap<Arc<str>, BTreeMap<TopicPartition, i64>> = BTreeMap::new();
    for partition in partitions {
        by_topic.entry(Arc::clone(&partition.0)).or_default().insert(partition, LATEST);
    }
    let deadline = Instant::now() + cluster.timeout();
    let mut wanted = BTreeMap::new();
    for (topic, mut partitions) in by_topic {
        match cluster.refresh_until(&[topic.to_string()], deadline).await {
            Ok(()) => {
                let known = cluster.topic(&topic).cloned().unwrap_or_default();
                partitions.retain(|(_, number), _| known.leaders.contains_key(number));
                wanted.extend(partitions);
            }
            Err(ClientError::Refused { code: ErrorCode::UnknownTopicOrPartition, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    offsets::list(cluster, &wanted, false).await
}
