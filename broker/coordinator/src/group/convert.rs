//! Between Kafka's messages and the machine's commands, with what differs by API version in one place. What needs the
//! cluster's metadata (topic ids, whether a topic exists, authorisation) is the shell's: it fills in names and errors.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetCommitRequest, SyncGroupRequest, SyncGroupResponse, TxnOffsetCommitRequest,
    describe_groups_response, join_group_response, leave_group_response, list_groups_response,
    offset_fetch_response,
};
use ottla_wire::text::Text;

use super::{
    FetchedOffset, FetchedTopic, GroupDescription, GroupListing, Heartbeat, Join, JoinReply, JoinedMember,
    Leave, LeaveReply, MemberDescription, MemberIdentity, OffsetCommit, OffsetToCommit, Protocol, Sync,
    SyncReply, Transaction,
};

/// Since this version a member must join with the id that it was given (KIP-394).
const JOIN_REQUIRES_MEMBER_ID: i16 = 4;
/// Since this version no protocol may be null (KIP-559).
const JOIN_NULLABLE_PROTOCOL: i16 = 7;
/// Since this version a returning static leader can be told to skip the assignment (KIP-814).
const JOIN_SKIPS_ASSIGNMENT: i16 = 9;
/// Since this version the protocol is mandatory (KIP-559).
const SYNC_REQUIRES_PROTOCOL: i16 = 5;
/// Since this version several members leave at once (KIP-345).
const LEAVE_TAKES_SEVERAL: i16 = 3;
/// Since this version a member epoch may stand for the generation (KIP-848).
const COMMIT_TAKES_MEMBER_EPOCH: i16 = 9;
/// Since this version a group that is not there is an error (KIP-1043).
const DESCRIBE_NAMES_MISSING: i16 = 6;

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Of the request's header, or empty.
    pub id: Text,
    /// As Kafka prints it: `/` and the address.
    pub host: Text,
}

impl Join {
    /// From a JoinGroup. `uuid` is random and makes the member id, if one is needed.
    pub fn from_request(request: JoinGroupRequest, version: i16, client: Client, uuid: uuid::Uuid) -> Self {
        let prefix = request.group_instance_id.as_ref().unwrap_or(&client.id);
        let new_member_id = Text::from(format!("{prefix}-{uuid}"));
        let protocols = request.protocols.into_iter();
        Self {
            // Version 0 has none and -1 stands for it.
            rebalance_timeout_ms: if version == 0 {
                request.session_timeout_ms
            } else {
                request.rebalance_timeout_ms
            },
            group_id: request.group_id,
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            session_timeout_ms: request.session_timeout_ms,
            protocol_type: request.protocol_type,
            protocols: protocols
                .map(|known| Protocol { name: known.name, metadata: known.metadata })
                .collect(),
            client_id: client.id,
            client_host: client.host,
            new_member_id,
            require_known_member_id: version >= JOIN_REQUIRES_MEMBER_ID,
            supports_skip_assignment: version >= JOIN_SKIPS_ASSIGNMENT,
        }
    }
}

impl JoinReply {
    /// To a JoinGroup's response.
    pub fn into_response(self, version: i16) -> JoinGroupResponse {
        let member = |member: JoinedMember| join_group_response::Member {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            metadata: member.metadata,
        };
        let nullable = version >= JOIN_NULLABLE_PROTOCOL;
        JoinGroupResponse {
            throttle_time_ms: 0,
            error_code: self.error.code(),
            generation_id: self.generation_id,
            protocol_type: self.protocol_type,
            protocol_name: self.protocol_name.or_else(|| (!nullable).then(Text::default)),
            leader: self.leader,
            skip_assignment: self.skip_assignment,
            member_id: self.member_id,
            members: self.members.into_iter().map(member).collect(),
        }
    }
}

impl Sync {
    /// From a SyncGroup.
    pub fn from_request(request: SyncGroupRequest, version: i16) -> Self {
        let assignments = request.assignments.into_iter();
        Self {
            group_id: request.group_id,
            generation_id: request.generation_id,
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            protocol_type: request.protocol_type,
            protocol_name: request.protocol_name,
            protocol_required: version >= SYNC_REQUIRES_PROTOCOL,
            assignments: assignments.map(|given| (given.member_id, given.assignment)).collect(),
        }
    }
}

impl SyncReply {
    /// To a SyncGroup's response.
    pub fn into_response(self) -> SyncGroupResponse {
        SyncGroupResponse {
            throttle_time_ms: 0,
            error_code: self.error.code(),
            protocol_type: self.protocol_type,
            protocol_name: self.protocol_name,
            assignment: self.assignment,
        }
    }
}

impl Heartbeat {
    /// From a Heartbeat.
    pub fn from_request(request: HeartbeatRequest) -> Self {
        Self {
            group_id: request.group_id,
            generation_id: request.generation_id,
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
        }
    }
}

impl Leave {
    /// From a LeaveGroup.
    pub fn from_request(request: LeaveGroupRequest, version: i16) -> Self {
        let members = if version >= LEAVE_TAKES_SEVERAL {
            let identity = |member: ottla_wire::messages::leave_group_request::Member| MemberIdentity {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
            };
            request.members.into_iter().map(identity).collect()
        } else {
            vec![MemberIdentity { member_id: request.member_id, group_instance_id: None }]
        };
        Self { group_id: request.group_id, members }
    }
}

impl LeaveReply {
    /// To a LeaveGroup's response.
    pub fn into_response(self, version: i16) -> LeaveGroupResponse {
        let first = self.members.first().map_or(ErrorCode::None, |(_, error)| *error);
        let of_one = version < LEAVE_TAKES_SEVERAL && self.error == ErrorCode::None;
        let member = |(identity, error): (MemberIdentity, ErrorCode)| leave_group_response::Member {
            member_id: identity.member_id,
            group_instance_id: identity.group_instance_id,
            error_code: error.code(),
        };
        LeaveGroupResponse {
            throttle_time_ms: 0,
            error_code: if of_one { first } else { self.error }.code(),
            members: self.members.into_iter().map(member).collect(),
        }
    }
}

impl OffsetCommit {
    /// From an OffsetCommit, with no partition's error set. Since version 10 topics have ids only: the shell puts their
    /// names in first.
    pub fn from_request(request: OffsetCommitRequest) -> Self {
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let offset = |partition: ottla_wire::messages::offset_commit_request::Partition| OffsetToCommit {
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata,
                error: ErrorCode::None,
            };
            topics.push((topic.name, topic.partitions.into_iter().map(offset).collect()));
        }
        Self {
            group_id: request.group_id,
            generation_id: request.generation_id_or_member_epoch,
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            retention_ms: (request.retention_time_ms >= 0).then_some(request.retention_time_ms),
            takes_member_epoch: true,
            transaction: None,
            topics,
        }
    }

    /// Of this version of OffsetCommit.
    #[must_use]
    pub fn of_version(self, version: i16) -> Self {
        Self { takes_member_epoch: version >= COMMIT_TAKES_MEMBER_EPOCH, ..self }
    }

    /// From a TxnOffsetCommit, with no partition's error set.
    pub fn from_transaction_request(request: TxnOffsetCommitRequest) -> Self {
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let offset =
                |partition: ottla_wire::messages::txn_offset_commit_request::Partition| OffsetToCommit {
                    partition: partition.partition_index,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata,
                    error: ErrorCode::None,
                };
            topics.push((topic.name, topic.partitions.into_iter().map(offset).collect()));
        }
        let transaction =
            Transaction { producer_id: request.producer_id, producer_epoch: request.producer_epoch };
        Self {
            group_id: request.group_id,
            generation_id: request.generation_id,
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            retention_ms: None,
            takes_member_epoch: true,
            transaction: Some(transaction),
            topics,
        }
    }
}

impl From<FetchedTopic> for offset_fetch_response::GroupTopic {
    /// Version 8 and later; the topic id, since 10, is the shell's to fill in.
    fn from(topic: FetchedTopic) -> Self {
        let partition = |fetched: FetchedOffset| offset_fetch_response::Partition {
            partition_index: fetched.partition,
            committed_offset: fetched.offset,
            committed_leader_epoch: fetched.leader_epoch,
            metadata: Some(fetched.metadata),
            error_code: fetched.error.code(),
        };
        let partitions = topic.partitions.into_iter().map(partition).collect();
        Self { name: topic.topic, partitions, ..Self::default() }
    }
}

impl From<FetchedTopic> for offset_fetch_response::Topic {
    /// Before version 8.
    fn from(topic: FetchedTopic) -> Self {
        let partition = |fetched: FetchedOffset| offset_fetch_response::TopicPartition {
            partition_index: fetched.partition,
            committed_offset: fetched.offset,
            committed_leader_epoch: fetched.leader_epoch,
            metadata: Some(fetched.metadata),
            error_code: fetched.error.code(),
        };
        Self { name: topic.topic, partitions: topic.partitions.into_iter().map(partition).collect() }
    }
}

impl GroupDescription {
    /// To a group of a DescribeGroups response; authorised operations are the shell's.
    pub fn into_response(self, group_id: Text, version: i16) -> describe_groups_response::Group {
        let missing = self.error == ErrorCode::GroupIdNotFound;
        let named = version >= DESCRIBE_NAMES_MISSING;
        let member = |member: MemberDescription| describe_groups_response::Member {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            client_id: member.client_id,
            client_host: member.client_host,
            member_metadata: member.metadata,
            member_assignment: member.assignment,
        };
        describe_groups_response::Group {
            error_code: if missing && !named { ErrorCode::None } else { self.error }.code(),
            error_message: (missing && named).then(|| Text::from(format!("Group {group_id} not found."))),
            group_id,
            group_state: Text::from(self.state.name()),
            protocol_type: self.protocol_type,
            protocol_data: self.protocol_data,
            members: self.members.into_iter().map(member).collect(),
            ..Default::default()
        }
    }
}

impl From<GroupListing> for list_groups_response::Group {
    fn from(listing: GroupListing) -> Self {
        Self {
            group_id: listing.group_id,
            protocol_type: listing.protocol_type,
            group_state: Text::from(listing.state),
            group_type: Text::from(listing.group_type),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Text {
        Text::from(value)
    }

    #[test]
    fn a_member_id_begins_with_the_instance_or_client_id() {
        let client = Client { id: text("client"), host: text("/::1") };
        let uuid = uuid::Uuid::nil();
        let mut request = JoinGroupRequest { session_timeout_ms: 7_000, ..Default::default() };
        let join = Join::from_request(request.clone(), 0, client.clone(), uuid);
        assert_eq!(join.new_member_id, text("client-00000000-0000-0000-0000-000000000000"));
        assert_eq!((join.rebalance_timeout_ms, join.require_known_member_id), (7_000, false));
        request.group_instance_id = Some(text("i"));
        request.rebalance_timeout_ms = 9_000;
        let join = Join::from_request(request, 9, client, uuid);
        assert!(join.new_member_id.starts_with("i-0000"));
        assert_eq!((join.rebalance_timeout_ms, join.require_known_member_id), (9_000, true));
        assert!(join.supports_skip_assignment);
    }

    #[test]
    fn before_version_7_the_protocol_name_of_a_refusal_is_empty_not_null() {
        let refused = JoinReply::refused(ErrorCode::UnknownMemberId, text("m"));
        assert_eq!(refused.clone().into_response(6).protocol_name, Some(text("")));
        assert_eq!(refused.into_response(7).protocol_name, None);
    }

    #[test]
    fn before_version_3_the_one_members_error_is_the_answers() {
        let request = LeaveGroupRequest { member_id: text("m"), ..Default::default() };
        let leave = Leave::from_request(request, 2);
        let members = vec![(leave.members[0].clone(), ErrorCode::UnknownMemberId)];
        let reply = LeaveReply { error: ErrorCode::None, members };
        assert_eq!(reply.clone().into_response(2).error_code, 25);
        let response = reply.into_response(3);
        assert_eq!((response.error_code, response.members[0].error_code), (0, 25));
    }

    #[test]
    fn a_missing_group_is_an_error_since_version_6() {
        let missing = GroupDescription {
            error: ErrorCode::GroupIdNotFound,
            state: super::super::GroupState::Dead,
            protocol_type: text(""),
            protocol_data: text(""),
            members: Vec::new(),
        };
        let old = missing.clone().into_response(text("g"), 5);
        assert_eq!((old.error_code, old.error_message, &*old.group_state), (0, None, "Dead"));
        let new = missing.into_response(text("g"), 6);
        assert_eq!((new.error_code, new.error_message.is_some(), &*new.group_state), (69, true, "Dead"));
    }
}
