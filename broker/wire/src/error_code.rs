//! Kafka's error codes.

/// An error as the protocol knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
#[allow(missing_docs, reason = "the names are Kafka's own and say it")]
pub enum ErrorCode {
    UnknownServerError = -1,
    None = 0,
    OffsetOutOfRange = 1,
    CorruptMessage = 2,
    UnknownTopicOrPartition = 3,
    InvalidFetchSize = 4,
    LeaderNotAvailable = 5,
    NotLeaderOrFollower = 6,
    RequestTimedOut = 7,
    BrokerNotAvailable = 8,
    ReplicaNotAvailable = 9,
    MessageTooLarge = 10,
    StaleControllerEpoch = 11,
    OffsetMetadataTooLarge = 12,
    NetworkException = 13,
    CoordinatorLoadInProgress = 14,
    CoordinatorNotAvailable = 15,
    NotCoordinator = 16,
    InvalidTopicException = 17,
    RecordListTooLarge = 18,
    NotEnoughReplicas = 19,
    NotEnoughReplicasAfterAppend = 20,
    InvalidRequiredAcks = 21,
    IllegalGeneration = 22,
    InconsistentGroupProtocol = 23,
    InvalidGroupId = 24,
    UnknownMemberId = 25,
    InvalidSessionTimeout = 26,
    RebalanceInProgress = 27,
    InvalidCommitOffsetSize = 28,
    TopicAuthorizationFailed = 29,
    GroupAuthorizationFailed = 30,
    ClusterAuthorizationFailed = 31,
    InvalidTimestamp = 32,
    UnsupportedSaslMechanism = 33,
    IllegalSaslState = 34,
    UnsupportedVersion = 35,
    TopicAlreadyExists = 36,
    InvalidPartitions = 37,
    InvalidReplicationFactor = 38,
    InvalidReplicaAssignment = 39,
    InvalidConfig = 40,
    NotController = 41,
    InvalidRequest = 42,
    UnsupportedForMessageFormat = 43,
    PolicyViolation = 44,
    OutOfOrderSequenceNumber = 45,
    DuplicateSequenceNumber = 46,
    InvalidProducerEpoch = 47,
    InvalidTxnState = 48,
    InvalidProducerIdMapping = 49,
    InvalidTransactionTimeout = 50,
    ConcurrentTransactions = 51,
    TransactionCoordinatorFenced = 52,
    TransactionalIdAuthorizationFailed = 53,
    SecurityDisabled = 54,
    OperationNotAttempted = 55,
    KafkaStorageError = 56,
    LogDirNotFound = 57,
    SaslAuthenticationFailed = 58,
    UnknownProducerId = 59,
    ReassignmentInProgress = 60,
    DelegationTokenAuthDisabled = 61,
    DelegationTokenNotFound = 62,
    DelegationTokenOwnerMismatch = 63,
    DelegationTokenRequestNotAllowed = 64,
    DelegationTokenAuthorizationFailed = 65,
    DelegationTokenExpired = 66,
    InvalidPrincipalType = 67,
    NonEmptyGroup = 68,
    GroupIdNotFound = 69,
    FetchSessionIdNotFound = 70,
    InvalidFetchSessionEpoch = 71,
    ListenerNotFound = 72,
    TopicDeletionDisabled = 73,
    FencedLeaderEpoch = 74,
    UnknownLeaderEpoch = 75,
    UnsupportedCompressionType = 76,
    StaleBrokerEpoch = 77,
    OffsetNotAvailable = 78,
    MemberIdRequired = 79,
    PreferredLeaderNotAvailable = 80,
    GroupMaxSizeReached = 81,
    FencedInstanceId = 82,
    EligibleLeadersNotAvailable = 83,
    ElectionNotNeeded = 84,
    NoReassignmentInProgress = 85,
    GroupSubscribedToTopic = 86,
    InvalidRecord = 87,
    UnstableOffsetCommit = 88,
    ThrottlingQuotaExceeded = 89,
    ProducerFenced = 90,
    ResourceNotFound = 91,
    DuplicateResource = 92,
    UnacceptableCredential = 93,
    InconsistentVoterSet = 94,
    InvalidUpdateVersion = 95,
    FeatureUpdateFailed = 96,
    PrincipalDeserializationFailure = 97,
    SnapshotNotFound = 98,
    PositionOutOfRange = 99,
    UnknownTopicId = 100,
    DuplicateBrokerRegistration = 101,
    BrokerIdNotRegistered = 102,
    InconsistentTopicId = 103,
    InconsistentClusterId = 104,
    TransactionalIdNotFound = 105,
    FetchSessionTopicIdError = 106,
    IneligibleReplica = 107,
    NewLeaderElected = 108,
    OffsetMovedToTieredStorage = 109,
    FencedMemberEpoch = 110,
    UnreleasedInstanceId = 111,
    UnsupportedAssignor = 112,
    StaleMemberEpoch = 113,
    MismatchedEndpointType = 114,
    UnsupportedEndpointType = 115,
    UnknownControllerId = 116,
    UnknownSubscriptionId = 117,
    TelemetryTooLarge = 118,
    InvalidRegistration = 119,
    TransactionAbortable = 120,
    InvalidRecordState = 121,
    ShareSessionNotFound = 122,
    InvalidShareSessionEpoch = 123,
    FencedStateEpoch = 124,
    InvalidVoterKey = 125,
    DuplicateVoter = 126,
    VoterNotFound = 127,
    InvalidRegularExpression = 128,
    RebootstrapRequired = 129,
    StreamsInvalidTopology = 130,
    StreamsInvalidTopologyEpoch = 131,
    StreamsTopologyFenced = 132,
    ShareSessionLimitReached = 133,
}

/// Code, name, and whether the same request may succeed later.
// One row a line.
#[rustfmt::skip]
static TABLE: &[(ErrorCode, &str, bool, &str)] = &[
    (ErrorCode::UnknownServerError, "UNKNOWN_SERVER_ERROR", false, "The broker failed in a way that no other code describes."),
    (ErrorCode::None, "NONE", false, "No error."),
    (ErrorCode::OffsetOutOfRange, "OFFSET_OUT_OF_RANGE", false, "The offset is outside the range that the partition holds."),
    (ErrorCode::CorruptMessage, "CORRUPT_MESSAGE", true, "The records are damaged: checksum, size or structure is wrong."),
    (ErrorCode::UnknownTopicOrPartition, "UNKNOWN_TOPIC_OR_PARTITION", true, "This broker does not host that topic or partition."),
    (ErrorCode::InvalidFetchSize, "INVALID_FETCH_SIZE", false, "The fetch size is not valid."),
    (ErrorCode::LeaderNotAvailable, "LEADER_NOT_AVAILABLE", true, "The partition has no leader at the moment."),
    (ErrorCode::NotLeaderOrFollower, "NOT_LEADER_OR_FOLLOWER", true, "This broker is not the leader or, for a fetch, not a replica of the partition."),
    (ErrorCode::RequestTimedOut, "REQUEST_TIMED_OUT", true, "The request was not completed within its timeout."),
    (ErrorCode::BrokerNotAvailable, "BROKER_NOT_AVAILABLE", false, "The broker is not available."),
    (ErrorCode::ReplicaNotAvailable, "REPLICA_NOT_AVAILABLE", true, "The replica is not available."),
    (ErrorCode::MessageTooLarge, "MESSAGE_TOO_LARGE", false, "The record batch is larger than the topic allows."),
    (ErrorCode::StaleControllerEpoch, "STALE_CONTROLLER_EPOCH", false, "The request comes from an older controller epoch."),
    (ErrorCode::OffsetMetadataTooLarge, "OFFSET_METADATA_TOO_LARGE", false, "The metadata string of a committed offset is too long."),
    (ErrorCode::NetworkException, "NETWORK_EXCEPTION", true, "The connection was lost before the response arrived."),
    (ErrorCode::CoordinatorLoadInProgress, "COORDINATOR_LOAD_IN_PROGRESS", true, "The coordinator is still loading its state."),
    (ErrorCode::CoordinatorNotAvailable, "COORDINATOR_NOT_AVAILABLE", true, "There is no coordinator at the moment."),
    (ErrorCode::NotCoordinator, "NOT_COORDINATOR", true, "This broker is not the coordinator asked for."),
    (ErrorCode::InvalidTopicException, "INVALID_TOPIC_EXCEPTION", false, "The topic's name or the operation on this topic is not valid."),
    (ErrorCode::RecordListTooLarge, "RECORD_LIST_TOO_LARGE", false, "The record batch is larger than a segment of the partition."),
    (ErrorCode::NotEnoughReplicas, "NOT_ENOUGH_REPLICAS", true, "Fewer replicas are in sync than the topic's minimum; nothing was written."),
    (ErrorCode::NotEnoughReplicasAfterAppend, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", true, "The records were written, but fewer replicas are in sync than the topic's minimum."),
    (ErrorCode::InvalidRequiredAcks, "INVALID_REQUIRED_ACKS", false, "Acks must be -1, 0 or 1."),
    (ErrorCode::IllegalGeneration, "ILLEGAL_GENERATION", false, "The generation is not the group's current one."),
    (ErrorCode::InconsistentGroupProtocol, "INCONSISTENT_GROUP_PROTOCOL", false, "The member shares no protocol, or not the protocol type, with its group."),
    (ErrorCode::InvalidGroupId, "INVALID_GROUP_ID", false, "The group's name is not valid."),
    (ErrorCode::UnknownMemberId, "UNKNOWN_MEMBER_ID", false, "The coordinator does not know this member."),
    (ErrorCode::InvalidSessionTimeout, "INVALID_SESSION_TIMEOUT", false, "The session timeout is outside the range that the broker allows."),
    (ErrorCode::RebalanceInProgress, "REBALANCE_IN_PROGRESS", false, "The group is rebalancing; the member has to join again."),
    (ErrorCode::InvalidCommitOffsetSize, "INVALID_COMMIT_OFFSET_SIZE", false, "The offset commit would be too large to store."),
    (ErrorCode::TopicAuthorizationFailed, "TOPIC_AUTHORIZATION_FAILED", false, "Not authorized for the topic."),
    (ErrorCode::GroupAuthorizationFailed, "GROUP_AUTHORIZATION_FAILED", false, "Not authorized for the group."),
    (ErrorCode::ClusterAuthorizationFailed, "CLUSTER_AUTHORIZATION_FAILED", false, "Not authorized for this operation on the cluster."),
    (ErrorCode::InvalidTimestamp, "INVALID_TIMESTAMP", false, "A record's timestamp is outside the range that the topic accepts."),
    (ErrorCode::UnsupportedSaslMechanism, "UNSUPPORTED_SASL_MECHANISM", false, "The broker does not support this SASL mechanism."),
    (ErrorCode::IllegalSaslState, "ILLEGAL_SASL_STATE", false, "The request is not valid in this state of the SASL exchange."),
    (ErrorCode::UnsupportedVersion, "UNSUPPORTED_VERSION", false, "The broker does not support this version of the request."),
    (ErrorCode::TopicAlreadyExists, "TOPIC_ALREADY_EXISTS", false, "A topic of this name exists."),
    (ErrorCode::InvalidPartitions, "INVALID_PARTITIONS", false, "The number of partitions is not valid."),
    (ErrorCode::InvalidReplicationFactor, "INVALID_REPLICATION_FACTOR", false, "The replication factor is below 1 or above the number of usable brokers."),
    (ErrorCode::InvalidReplicaAssignment, "INVALID_REPLICA_ASSIGNMENT", false, "The assignment of replicas is not valid."),
    (ErrorCode::InvalidConfig, "INVALID_CONFIG", false, "A configuration is not valid."),
    (ErrorCode::NotController, "NOT_CONTROLLER", true, "This node is not the active controller."),
    (ErrorCode::InvalidRequest, "INVALID_REQUEST", false, "The request contradicts itself or the protocol."),
    (ErrorCode::UnsupportedForMessageFormat, "UNSUPPORTED_FOR_MESSAGE_FORMAT", false, "The partition's message format does not support the request."),
    (ErrorCode::PolicyViolation, "POLICY_VIOLATION", false, "The request violates a policy of the cluster."),
    (ErrorCode::OutOfOrderSequenceNumber, "OUT_OF_ORDER_SEQUENCE_NUMBER", false, "The producer's sequence number does not follow the last one."),
    (ErrorCode::DuplicateSequenceNumber, "DUPLICATE_SEQUENCE_NUMBER", false, "The producer's sequence number was written before."),
    (ErrorCode::InvalidProducerEpoch, "INVALID_PRODUCER_EPOCH", false, "The producer's epoch is older than the one known."),
    (ErrorCode::InvalidTxnState, "INVALID_TXN_STATE", false, "The operation is not valid in the transaction's state."),
    (ErrorCode::InvalidProducerIdMapping, "INVALID_PRODUCER_ID_MAPPING", false, "The producer id does not belong to the transactional id."),
    (ErrorCode::InvalidTransactionTimeout, "INVALID_TRANSACTION_TIMEOUT", false, "The transaction timeout is above what the broker allows."),
    (ErrorCode::ConcurrentTransactions, "CONCURRENT_TRANSACTIONS", true, "An earlier transaction of this producer is still being completed."),
    (ErrorCode::TransactionCoordinatorFenced, "TRANSACTION_COORDINATOR_FENCED", false, "A newer transaction coordinator has taken over."),
    (ErrorCode::TransactionalIdAuthorizationFailed, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", false, "Not authorized for the transactional id."),
    (ErrorCode::SecurityDisabled, "SECURITY_DISABLED", false, "Security features are switched off."),
    (ErrorCode::OperationNotAttempted, "OPERATION_NOT_ATTEMPTED", false, "The operation was not attempted because another part of the request failed."),
    (ErrorCode::KafkaStorageError, "KAFKA_STORAGE_ERROR", true, "A disk failed while the request was served."),
    (ErrorCode::LogDirNotFound, "LOG_DIR_NOT_FOUND", false, "The broker has no such log directory."),
    (ErrorCode::SaslAuthenticationFailed, "SASL_AUTHENTICATION_FAILED", false, "Authentication failed."),
    (ErrorCode::UnknownProducerId, "UNKNOWN_PRODUCER_ID", false, "The partition has no state of this producer."),
    (ErrorCode::ReassignmentInProgress, "REASSIGNMENT_IN_PROGRESS", false, "The partition is being reassigned."),
    (ErrorCode::DelegationTokenAuthDisabled, "DELEGATION_TOKEN_AUTH_DISABLED", false, "Delegation tokens are switched off."),
    (ErrorCode::DelegationTokenNotFound, "DELEGATION_TOKEN_NOT_FOUND", false, "There is no such delegation token."),
    (ErrorCode::DelegationTokenOwnerMismatch, "DELEGATION_TOKEN_OWNER_MISMATCH", false, "The principal is not the owner of the delegation token."),
    (ErrorCode::DelegationTokenRequestNotAllowed, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", false, "Delegation token requests are not allowed on this connection."),
    (ErrorCode::DelegationTokenAuthorizationFailed, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", false, "Not authorized for the delegation token."),
    (ErrorCode::DelegationTokenExpired, "DELEGATION_TOKEN_EXPIRED", false, "The delegation token has expired."),
    (ErrorCode::InvalidPrincipalType, "INVALID_PRINCIPAL_TYPE", false, "The principal's type is not supported."),
    (ErrorCode::NonEmptyGroup, "NON_EMPTY_GROUP", false, "The group still has members."),
    (ErrorCode::GroupIdNotFound, "GROUP_ID_NOT_FOUND", false, "There is no such group."),
    (ErrorCode::FetchSessionIdNotFound, "FETCH_SESSION_ID_NOT_FOUND", true, "The broker has no such fetch session."),
    (ErrorCode::InvalidFetchSessionEpoch, "INVALID_FETCH_SESSION_EPOCH", true, "The epoch is not the next one of the fetch session."),
    (ErrorCode::ListenerNotFound, "LISTENER_NOT_FOUND", true, "The leader has no listener of the name the request came in by."),
    (ErrorCode::TopicDeletionDisabled, "TOPIC_DELETION_DISABLED", false, "Deleting topics is switched off."),
    (ErrorCode::FencedLeaderEpoch, "FENCED_LEADER_EPOCH", true, "The leader epoch in the request is older than the broker's."),
    (ErrorCode::UnknownLeaderEpoch, "UNKNOWN_LEADER_EPOCH", true, "The leader epoch in the request is newer than the broker's."),
    (ErrorCode::UnsupportedCompressionType, "UNSUPPORTED_COMPRESSION_TYPE", false, "The request's version does not support the records' compression."),
    (ErrorCode::StaleBrokerEpoch, "STALE_BROKER_EPOCH", false, "The broker's epoch is not the current one."),
    (ErrorCode::OffsetNotAvailable, "OFFSET_NOT_AVAILABLE", true, "The new leader does not yet know the offset that is safe to read to."),
    (ErrorCode::MemberIdRequired, "MEMBER_ID_REQUIRED", false, "The member has to join again with the id it was given."),
    (ErrorCode::PreferredLeaderNotAvailable, "PREFERRED_LEADER_NOT_AVAILABLE", true, "The preferred leader is not available."),
    (ErrorCode::GroupMaxSizeReached, "GROUP_MAX_SIZE_REACHED", false, "The group has as many members as it may have."),
    (ErrorCode::FencedInstanceId, "FENCED_INSTANCE_ID", false, "Another member has taken this instance id."),
    (ErrorCode::EligibleLeadersNotAvailable, "ELIGIBLE_LEADERS_NOT_AVAILABLE", true, "No replica that may lead the partition is available."),
    (ErrorCode::ElectionNotNeeded, "ELECTION_NOT_NEEDED", true, "The partition has the leader it should have."),
    (ErrorCode::NoReassignmentInProgress, "NO_REASSIGNMENT_IN_PROGRESS", false, "The partition is not being reassigned."),
    (ErrorCode::GroupSubscribedToTopic, "GROUP_SUBSCRIBED_TO_TOPIC", false, "A member of the group is subscribed to the topic."),
    (ErrorCode::InvalidRecord, "INVALID_RECORD", false, "A record breaks a rule of its topic."),
    (ErrorCode::UnstableOffsetCommit, "UNSTABLE_OFFSET_COMMIT", true, "A pending transaction may still change the committed offset."),
    (ErrorCode::ThrottlingQuotaExceeded, "THROTTLING_QUOTA_EXCEEDED", true, "The quota is exhausted; try again after the throttle time."),
    (ErrorCode::ProducerFenced, "PRODUCER_FENCED", false, "A newer producer has taken over the transactional id."),
    (ErrorCode::ResourceNotFound, "RESOURCE_NOT_FOUND", false, "There is no such resource."),
    (ErrorCode::DuplicateResource, "DUPLICATE_RESOURCE", false, "The resource exists or stands twice in the request."),
    (ErrorCode::UnacceptableCredential, "UNACCEPTABLE_CREDENTIAL", false, "The credential does not satisfy the rules."),
    (ErrorCode::InconsistentVoterSet, "INCONSISTENT_VOTER_SET", false, "The voters in the request are not those of the quorum."),
    (ErrorCode::InvalidUpdateVersion, "INVALID_UPDATE_VERSION", false, "The version is not valid for the update."),
    (ErrorCode::FeatureUpdateFailed, "FEATURE_UPDATE_FAILED", false, "A feature could not be updated."),
    (ErrorCode::PrincipalDeserializationFailure, "PRINCIPAL_DESERIALIZATION_FAILURE", false, "The forwarded principal could not be read."),
    (ErrorCode::SnapshotNotFound, "SNAPSHOT_NOT_FOUND", false, "There is no such snapshot."),
    (ErrorCode::PositionOutOfRange, "POSITION_OUT_OF_RANGE", false, "The position is outside the snapshot."),
    (ErrorCode::UnknownTopicId, "UNKNOWN_TOPIC_ID", true, "This broker does not know the topic id."),
    (ErrorCode::DuplicateBrokerRegistration, "DUPLICATE_BROKER_REGISTRATION", false, "Another live broker has this broker id."),
    (ErrorCode::BrokerIdNotRegistered, "BROKER_ID_NOT_REGISTERED", false, "No broker is registered under this id."),
    (ErrorCode::InconsistentTopicId, "INCONSISTENT_TOPIC_ID", true, "The topic id is not that of the partition's log."),
    (ErrorCode::InconsistentClusterId, "INCONSISTENT_CLUSTER_ID", false, "The cluster id is another cluster's."),
    (ErrorCode::TransactionalIdNotFound, "TRANSACTIONAL_ID_NOT_FOUND", false, "There is no such transactional id."),
    (ErrorCode::FetchSessionTopicIdError, "FETCH_SESSION_TOPIC_ID_ERROR", true, "The fetch session mixes topic names and topic ids."),
    (ErrorCode::IneligibleReplica, "INELIGIBLE_REPLICA", false, "The replica may not join the in-sync replicas."),
    (ErrorCode::NewLeaderElected, "NEW_LEADER_ELECTED", false, "The change of in-sync replicas made another broker the leader."),
    (ErrorCode::OffsetMovedToTieredStorage, "OFFSET_MOVED_TO_TIERED_STORAGE", false, "The offset is only in tiered storage."),
    (ErrorCode::FencedMemberEpoch, "FENCED_MEMBER_EPOCH", false, "The member's epoch is not the one the coordinator knows; the member has to rejoin."),
    (ErrorCode::UnreleasedInstanceId, "UNRELEASED_INSTANCE_ID", false, "Another member still uses the instance id."),
    (ErrorCode::UnsupportedAssignor, "UNSUPPORTED_ASSIGNOR", false, "The coordinator does not support the assignor, or the members do not share it."),
    (ErrorCode::StaleMemberEpoch, "STALE_MEMBER_EPOCH", false, "The member's epoch is older than the coordinator's."),
    (ErrorCode::MismatchedEndpointType, "MISMATCHED_ENDPOINT_TYPE", false, "The request was sent to an endpoint of the wrong type."),
    (ErrorCode::UnsupportedEndpointType, "UNSUPPORTED_ENDPOINT_TYPE", false, "The endpoint type is not supported."),
    (ErrorCode::UnknownControllerId, "UNKNOWN_CONTROLLER_ID", false, "There is no such controller."),
    (ErrorCode::UnknownSubscriptionId, "UNKNOWN_SUBSCRIPTION_ID", false, "The telemetry subscription is not the client's current one."),
    (ErrorCode::TelemetryTooLarge, "TELEMETRY_TOO_LARGE", false, "The pushed telemetry is larger than allowed."),
    (ErrorCode::InvalidRegistration, "INVALID_REGISTRATION", false, "The registration is not valid."),
    (ErrorCode::TransactionAbortable, "TRANSACTION_ABORTABLE", false, "The operation failed; the transaction can still be aborted."),
    (ErrorCode::InvalidRecordState, "INVALID_RECORD_STATE", false, "The record's delivery state does not allow the acknowledgement."),
    (ErrorCode::ShareSessionNotFound, "SHARE_SESSION_NOT_FOUND", true, "The broker has no such share session."),
    (ErrorCode::InvalidShareSessionEpoch, "INVALID_SHARE_SESSION_EPOCH", true, "The epoch is not the next one of the share session."),
    (ErrorCode::FencedStateEpoch, "FENCED_STATE_EPOCH", false, "The share state's epoch is older than the one known."),
    (ErrorCode::InvalidVoterKey, "INVALID_VOTER_KEY", false, "The voter's key is not the receiver's."),
    (ErrorCode::DuplicateVoter, "DUPLICATE_VOTER", false, "The voter is already in the quorum."),
    (ErrorCode::VoterNotFound, "VOTER_NOT_FOUND", false, "The voter is not in the quorum."),
    (ErrorCode::InvalidRegularExpression, "INVALID_REGULAR_EXPRESSION", false, "The regular expression is not valid."),
    (ErrorCode::RebootstrapRequired, "REBOOTSTRAP_REQUIRED", false, "The client has to start again from its bootstrap servers."),
    (ErrorCode::StreamsInvalidTopology, "STREAMS_INVALID_TOPOLOGY", false, "The streams topology is not valid."),
    (ErrorCode::StreamsInvalidTopologyEpoch, "STREAMS_INVALID_TOPOLOGY_EPOCH", false, "The streams topology's epoch is not valid."),
    (ErrorCode::StreamsTopologyFenced, "STREAMS_TOPOLOGY_FENCED", false, "The streams topology's epoch is older than the group's."),
    (ErrorCode::ShareSessionLimitReached, "SHARE_SESSION_LIMIT_REACHED", true, "The broker has as many share sessions as it may have."),
];

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The error with this number; an unknown number is an unknown error.
    pub fn from_code(code: i16) -> Self {
        TABLE
            .iter()
            .find(|(known, ..)| known.code() == code)
            .map_or(Self::UnknownServerError, |(known, ..)| *known)
    }

    /// Kafka's name, `NOT_CONTROLLER`.
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// Whether a client may try again.
    pub fn is_retriable(self) -> bool {
        self.entry().2
    }

    /// What is wrong, in a sentence.
    pub fn message(self) -> &'static str {
        self.entry().3
    }

    fn entry(self) -> &'static (Self, &'static str, bool, &'static str) {
        // Codes are dense from -1 on.
        usize::try_from(self.code() + 1).ok().and_then(|at| TABLE.get(at)).unwrap_or(&TABLE[0])
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_finds_its_own_row() {
        for (code, name, ..) in TABLE {
            assert_eq!(ErrorCode::from_code(code.code()), *code);
            assert_eq!(code.name(), *name);
        }
        assert_eq!(ErrorCode::from_code(12_345), ErrorCode::UnknownServerError);
    }
}
