//! What coordinators say of their groups: members, assignments, committed offsets. Each broker is asked for all of its groups at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::future::join_all;
use ottla_wire::messages::{
    ConsumerGroupDescribeRequest, DescribeGroupsRequest, OffsetFetchRequest,
    consumer_group_describe_response, describe_groups_response, offset_fetch_request,
};
use ottla_wire::persisted::{ConsumerProtocolAssignment, decode_consumer_protocol};
use ottla_wire::text::Text;
use serde_json::{Value, json};

use super::Console;
use super::groups::{Details, Listed};
use crate::context::BrokerContext;

const DESCRIBE_GROUPS_VERSION: i16 = 5;
const CONSUMER_GROUP_DESCRIBE_VERSION: i16 = 1;
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

#[derive(Debug)]
pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) metadata: String,
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
    /// Who reads which partition.
    pub(super) fn readers(&self) -> HashMap<(Text, i32), Text> {
        let members = self.members.iter().flatten();
        let read = |member: &Member| {
            let (name, assigned) = (member.client_id.clone(), member.assigned.clone());
            assigned.into_iter().flat_map(move |(topic, partitions)| {
                let name = name.clone();
                partitions.into_iter().map(move |partition| ((topic.clone(), partition), name.clone()))
            })
        };
        members.flat_map(read).collect()
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
            let with_offsets: Vec<Text> = classic.iter().chain(&consumer).cloned().collect();
            tokio::join!(
                self.classic_groups(context, broker, classic),
                self.consumer_groups(context, broker, consumer),
                self.committed(context, broker, with_offsets),
            )
        });
        let mut details = Details::new();
        for (classic, consumer, committed) in join_all(asked).await {
            for (id, assignor, members) in classic.into_iter().chain(consumer) {
                details.insert(id, Detail { assignor, members: Some(members), committed: None });
            }
            for (id, offsets) in committed {
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
    ) -> Vec<(Text, String, Vec<Member>)> {
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
    ) -> Vec<(Text, String, Vec<Member>)> {
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
                    let committed = Committed { offset: one.committed_offset, metadata };
                    offsets.insert((topic.name.clone(), one.partition_index), committed);
                }
            }
            (group.group_id, offsets)
        })
        .collect()
    }
}
