//! Between Kafka's messages and the machine's commands: ShareGroupHeartbeat and ShareGroupDescribe.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{
    ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse, share_group_describe_response as described,
    share_group_heartbeat_response as response,
};
use ottla_wire::text::Text;

use super::convert::Client;
use super::describe_consumer::DescribedPartitions;
use super::share::{ShareGroupDescription, ShareMemberDescription};
use crate::consumer_group::Refusal;
use crate::share_group::{SHARE_ASSIGNOR, ShareHeartbeat, ShareHeartbeatReply};

impl Refusal {
    /// One that the code says all about.
    pub fn from_code(error: ErrorCode) -> Self {
        Self::new(error, error.message())
    }
}

impl ShareHeartbeat {
    /// From a ShareGroupHeartbeat.
    pub fn from_request(request: ShareGroupHeartbeatRequest, client: Client) -> Self {
        Self {
            group_id: request.group_id,
            member_id: request.member_id,
            member_epoch: request.member_epoch,
            rack_id: request.rack_id,
            topics: request.subscribed_topic_names,
            client_id: client.id,
            client_host: client.host,
        }
    }
}

impl ShareHeartbeatReply {
    /// To a ShareGroupHeartbeat's response.
    pub fn into_response(self) -> ShareGroupHeartbeatResponse {
        let topic = |(topic_id, numbers): (uuid::Uuid, std::collections::BTreeSet<i32>)| {
            response::TopicPartition { topic_id, partitions: numbers.into_iter().collect() }
        };
        let assignment = self.assignment.map(|partitions| response::Assignment {
            topic_partitions: partitions.into_iter().map(topic).collect(),
        });
        ShareGroupHeartbeatResponse {
            throttle_time_ms: 0,
            error_code: self.error.code(),
            error_message: self.message,
            member_id: self.member_id,
            member_epoch: self.member_epoch,
            heartbeat_interval_ms: self.heartbeat_interval_ms,
            assignment,
        }
    }
}

impl ShareGroupDescription {
    /// To a group of a ShareGroupDescribe response; authorised operations are the shell's.
    pub fn into_response(self, group_id: Text) -> described::Group {
        described::Group {
            group_id,
            group_state: Text::from_static(self.state.name()),
            group_epoch: self.group_epoch,
            assignment_epoch: self.assignment_epoch,
            assignor_name: Text::from_static(SHARE_ASSIGNOR),
            members: self.members.into_iter().map(described_member).collect(),
            ..Default::default()
        }
    }

    /// A group that cannot be described.
    pub fn refused(group_id: Text, refusal: &Refusal) -> described::Group {
        described::Group {
            error_code: refusal.error.code(),
            error_message: Some(Text::from(refusal.message.as_str())),
            group_id,
            ..Default::default()
        }
    }
}

fn described_member(member: ShareMemberDescription) -> described::Member {
    let topic = |topic: DescribedPartitions| described::TopicPartition {
        topic_id: topic.topic_id,
        topic_name: topic.topic_name,
        partitions: topic.partitions,
    };
    described::Member {
        member_id: member.member_id,
        rack_id: member.metadata.rack_id,
        member_epoch: member.member_epoch,
        client_id: member.metadata.client_id,
        client_host: member.metadata.client_host,
        subscribed_topic_names: member.metadata.topics.into_iter().collect(),
        assignment: described::Assignment {
            topic_partitions: member.assignment.into_iter().map(topic).collect(),
        },
    }
}
