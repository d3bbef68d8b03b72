//! What coordinators say of their groups: members, assignments, committed offsets. Each broker is asked for all of its groups at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::future::join_all;
use ottla_wire::messages::{
    ConsumerGroupDescribeRequest, DescribeGroupsRequest, DescribeShareGroupOffsetsRequest,
    OffsetFetchRequest, ShareGroupDescribeRequest, StreamsGroupDescribeRequest,
    consumer_group_describe_response, describe_groups_response, describe_share_group_offsets_request,
    offset_fetch_request, share_group_describe_response, streams_group_describe_response,
};
use ottla_wire::persisted::{ConsumerProtocolAssignment, decode_consumer_protocol};
use ottla_wire::text::Text;
use serde_json::{Value, json};

use super::Console;
use super::groups::{Details, Listed};
use crate::context::BrokerContext;

const DESCRIBE_GROUPS_VERSION: i16 = 5;
const CONSUMER_GROUP_DESCRIBE_VERSION: i16 = 1;
const SHARE_GROUP_DESCRIBE_VERSION: i16 = 1;
const STREAMS_GROUP_DESCRIBE_VERSION: i16 = 0;
/// The version that tells how much is left to be delivered.
const SHARE_GROUP_OFFSETS_VERSION: i16 = 1;
/// The version that takes several groups, and names topics.
const OFFSET_FETCH_VERSION: i16 = 9;
/// The member epoch of somebody who is no member.
const NO_EPOCH: i32 = -1;

/// A group as its coordinator sees it. What was not answered is `None`.
#[derive(Debug, Default)]
pub(super) struct Detail {
    pub(super) assignor: String,
    pub(super) members: Option<Vec<Member>>,
    pub(super) committed: Option<BTreeMap<(Text, i32), Committed>>,
}

/// How far a group is in a partition. Of a share group: where what is not delivered yet begins.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) metadata: String,
    /// What the coordinator says is left; else it is what lies between the offset and the end.
    left: Option<i64>,
}

impl Committed {
    /// Records that the group has not got yet, in a partition that ends there.
    pub(super) fn lag(&self, end: Option<i64>) -> Option<i64> {
        self.left.or_else(|| end.map(|end| (end - self.offset).max(0)))
    }
}

#[derive(Debug)]
pub(super) struct Member {
    id: Text,
    instance_id: Option<Text>,
    client_id: Text,
    host: Text,
    epoch: Option<i32>,
    assigned: Vec<(Text, Vec<i32>)>,
}

/// A group's id, its assignor, its members.
type Described = (Text, String, Vec<Member>);

impl Member {
    /// Topics that the caller may not see are left out.
    pub(super) fn shown(&self, seen: &impl Fn(&Text) -> bool) -> Value {
        let assigned: Vec<Value> = self
            .assigned
            .iter()
            .filter(|(topic, _)| seen(topic))
            .map(|(topic, partitions)| json!({ "topic": &**topic, "partitions": partitions }))
            .collect();
        json!({
            "id": &*self.id,
            "instance_id": self.instance_id.as_deref(),
            "client_id": &*self.client_id,
            "host": &*self.host,
            "epoch": self.epoch,
            "assigned": assigned,
        })
    }
}

impl Detail {
    /// Who reads which partition: of a share group it may be several.
    pub(super) fn readers(&self) -> BTreeMap<(Text, i32), Vec<&str>> {
        let mut readers: BTreeMap<(Text, i32), Vec<&str>> = BTreeMap::new();
        for member in self.members.iter().flatten() {
            for (topic, partitions) in &member.assigned {
                for partition in partitions {
                    readers.entry((topic.clone(), *partition)).or_default().push(&member.client_id);
                }
            }
        }
        readers
    }
}

impl From<consumer_group_describe_response::Member> for Member {
    fn from(member: consumer_group_describe_response::Member) -> Self {
        let topics = member.assignment.topic_partitions.into_iter();
        Self {
            id: member.member_id,
            instance_id: member.instance_id,
            client_id: member.client_id,
            host: member.client_host,
            epoch: Some(member.member_epoch),
            assigned: topics.map(|topic| (topic.topic_name, topic.partitions)).collect(),
        }
    }
}

impl From<share_group_describe_response::Member> for Member {
    fn from(member: share_group_describe_response::Member) -> Self {
        let topics = member.assignment.topic_partitions.into_iter();
        Self {
            id: member.member_id,
            instance_id: None,
            client_id: member.client_id,
            host: member.client_host,
            epoch: Some(member.member_epoch),
            assigned: topics.map(|topic| (topic.topic_name, topic.partitions)).collect(),
        }
    }
}

/// A member of a streams group: what it reads are the sources of its active tasks.
fn of_streams(member: streams_group_describe_response::Member, sources: &HashMap<Text, Vec<Text>>) -> Member {
    let mut assigned: BTreeMap<Text, Vec<i32>> = BTreeMap::new();
    for task in member.assignment.active_tasks {
        for topic in sources.get(&task.subtopology_id).into_iter().flatten() {
            assigned.entry(topic.clone()).or_default().extend(&task.partitions);
        }
    }
    Member {
        id: member.member_id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        host: member.client_host,
        epoch: Some(member.member_epoch),
        assigned: assigned.into_iter().collect(),
    }
}

/// The topics that each part of a topology reads.
fn sources(topology: Option<streams_group_describe_response::Topology>) -> HashMap<Text, Vec<Text>> {
    let parts = topology.into_iter().flat_map(|topology| topology.subtopologies.unwrap_or_default());
    parts
        .map(|part| {
            let repartitioned = part.repartition_source_topics.into_iter().map(|topic| topic.name);
            (part.subtopology_id, part.source_topics.into_iter().chain(repartitioned).collect())
        })
        .collect()
}

/// A member of the older protocol; what is no consumer's assignment only its own clients can read.
fn classic(member: describe_groups_response::Member, of_consumers: bool) -> Member {
    let bytes = Some(&member.member_assignment).filter(|bytes| of_consumers && !bytes.is_empty());
    let assignment =
        bytes.and_then(|bytes| decode_consumer_protocol::<ConsumerProtocolAssignment>(bytes).ok());
    let topics = assignment.map(|assignment| assignment.assigned_partitions).unwrap_or_default();
    Member {
        id: member.member_id,
        instance_id: member.group_instance_id,
        client_id: member.client_id,
        host: member.client_host,
        epoch: None,
        assigned: topics.into_iter().map(|topic| (topic.topic, topic.partitions)).collect(),
    }
}

impl Console {
    /// Asks the coordinators of these groups. A group whose coordinator does not answer is not in the result.
    pub(super) async fn details(&self, context: &Arc<BrokerContext>, groups: &[Listed]) -> Details {
        let mut by_broker: BTreeMap<i32, Vec<&Listed>> = BTreeMap::new();
        for group in groups {
            by_broker.entry(group.coordinator).or_default().push(group);
        }
        let asked = by_broker.into_iter().map(|(broker, groups)| async move {
            let of_kind = |kind: &str| -> Vec<Text> {
                let fits = groups.iter().filter(|group| group.kind.eq_ignore_ascii_case(kind));
                fits.map(|group| group.id.clone()).collect()
            };
            let (classic, consumer) = (of_kind("classic"), of_kind("consumer"));
            let (share, streams) = (of_kind("share"), of_kind("streams"));
            let with_offsets: Vec<Text> = classic.iter().chain(&consumer).chain(&streams).cloned().collect();
            tokio::join!(
                self.classic_groups(context, broker, classic),
                self.consumer_groups(context, broker, consumer),
                self.share_groups(context, broker, share.clone()),
                self.streams_groups(context, broker, streams),
                self.committed(context, broker, with_offsets),
                self.delivered(context, broker, share),
            )
        });
        let mut details = Details::new();
        for (classic, consumer, share, streams, committed, delivered) in join_all(asked).await {
            for (id, assignor, members) in [classic, consumer, share, streams].into_iter().flatten() {
                details.insert(id, Detail { assignor, members: Some(members), committed: None });
            }
            for (id, offsets) in committed.into_iter().chain(delivered) {
                details.entry(id).or_default().committed = Some(offsets);
            }
        }
        details
    }

    async fn classic_groups(
        &self,
        context: &Arc<BrokerContext>,
        broker: i32,
        groups: Vec<Text>,
    ) -> Vec<Described> {
        if groups.is_empty() {
            return Vec::new();
        }
        let request = DescribeGroupsRequest { groups, include_authorized_operations: false };
        let Ok(answer) = self.peers.call(context, broker, &request, DESCRIBE_GROUPS_VERSION).await else {
            return Vec::new();
        };
        let fits = answer.groups.into_iter().filter(|group| group.error_code == 0);
        fits.map(|group| {
            let of_consumers = &*group.protocol_type == "consumer";
            let members = group.members.into_iter().map(|member| classic(member, of_consumers)).collect();
            (group.group_id, group.protocol_data.to_string(), members)
        })
        .collect()
    }

    async fn consumer_groups(
        &self,
        context: &Arc<BrokerContext>,
        broker: i32,
        group_ids: Vec<Text>,
    ) -> Vec<Described> {
        if group_ids.is_empty() {
            return Vec::new();
        }
        let request = ConsumerGroupDescribeRequest { group_ids, include_authorized_operations: false };
        let asked = self.peers.call(context, broker, &request, CONSUMER_GROUP_DESCRIBE_VERSION).await;
        let Ok(answer) = asked else { return Vec::new() };
        let fits = answer.groups.into_iter().filter(|group| group.error_code == 0);
        fits.map(|group| {
            let members = group.members.into_iter().map(Member::from).collect();
            (group.group_id, group.assignor_name.to_string(), members)
        })
        .collect()
    }

    async fn share_groups(
        &self,
        context: &Arc<BrokerContext>,
        broker: i32,
        group_ids: Vec<Text>,
    ) -> Vec<Described> {
        if group_ids.is_empty() {
            return Vec::new();
        }
        let request = ShareGroupDescribeRequest { group_ids, include_authorized_operations: false };
        let asked = self.peers.call(context, broker, &request, SHARE_GROUP_DESCRIBE_VERSION).await;
        let Ok(answer) = asked else { return Vec::new() };
        let fits = answer.groups.into_iter().filter(|group| group.error_code == 0);
        fits.map(|group| {
            let members = group.members.into_iter().map(Member::from).collect();
            (group.group_id, group.assignor_name.to_string(), members)
        })
        .collect()
    }

    async fn streams_groups(
        &self,
        context: &Arc<BrokerContext>,
        broker: i32,
        group_ids: Vec<Text>,
    ) -> Vec<Described> {
        if group_ids.is_empty() {
            return Vec::new();
        }
        let request = StreamsGroupDescribeRequest { group_ids, include_authorized_operations: false };
        let asked = self.peers.call(context, broker, &request, STREAMS_GROUP_DESCRIBE_VERSION).await;
        let Ok(answer) = asked else { return Vec::new() };
        let fits = answer.groups.into_iter().filter(|group| group.error_code == 0);
        fits.map(|group| {
            let sources = sources(group.topology);
            let members = group.members.into_iter().map(|member| of_streams(member, &sources)).collect();
            (group.group_id, String::new(), members)
        })
        .collect()
    }

    /// How far share groups are.
    async fn delivered(
        &self,
        context: &Arc<BrokerContext>,
        broker: i32,
        groups: Vec<Text>,
    ) -> Vec<(Text, BTreeMap<(Text, i32), Committed>)> {
        if groups.is_empty() {
            return Vec::new();
        }
        let all = |group_id| describe_share_group_offsets_request::Group { group_id, topics: None };
        let request = DescribeShareGroupOffsetsRequest { groups: groups.into_iter().map(all).collect() };
        let asked = self.peers.call(context, broker, &request, SHARE_GROUP_OFFSETS_VERSION).await;
        let Ok(answer) = asked else { return Vec::new() };
        let fits = answer.groups.into_iter().filter(|group| group.error_code == 0);
        fits.map(|group| {
            let mut offsets = BTreeMap::new();
            for topic in group.topics {
                let known = topic.partitions.into_iter();
                for one in known.filter(|one| one.error_code == 0 && one.start_offset >= 0) {
                    let left = Some(one.lag).filter(|lag| *lag >= 0);
                    let delivered = Committed { offset: one.start_offset, metadata: String::new(), left };
                    offsets.insert((topic.topic_name.clone(), one.partition_index), delivered);
                }
            }
            (group.group_id, offsets)
        })
        .collect()
    }

    async fn committed(
        &self,
        context: &Arc<BrokerContext>,
        broker: i32,
        groups: Vec<Text>,
    ) -> Vec<(Text, BTreeMap<(Text, i32), Committed>)> {
        if groups.is_empty() {
            return Vec::new();
        }
        let group = |group_id| offset_fetch_request::Group {
            group_id,
            member_epoch: NO_EPOCH,
            topics: None,
            ..Default::default()
        };
        let request =
            OffsetFetchRequest { groups: groups.into_iter().map(group).collect(), ..Default::default() };
        let asked = self.peers.call(context, broker, &request, OFFSET_FETCH_VERSION).await;
        let Ok(answer) = asked else { return Vec::new() };
        let fits = answer.groups.into_iter().filter(|group| group.error_code == 0);
        fits.map(|group| {
            let mut offsets = BTreeMap::new();
            for topic in group.topics {
                for one in topic.partitions.into_iter().filter(|one| one.committed_offset >= 0) {
                    let metadata = one.metadata.map(|text| text.to_string()).unwrap_or_default();
                    let committed = Committed { offset: one.committed_offset, metadata, left: None };
                    offsets.insert((topic.name.clone(), one.partition_index), committed);
                }
            }
            (group.group_id, offsets)
        })
        .collect()
    }
}
