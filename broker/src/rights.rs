//! Which right each API asks for: the one table that `docs/authorization.md` is written from, and that a test goes through with and
//! without each right.
//!
//! It follows Apache Kafka's authorisation of each API (`KafkaApis`), name by name.

use std::fmt::Write;

use ottla_metadata::acl::{AclOperation, AclResourceType};
use ottla_wire::api::ApiKey;
use ottla_wire::error_code::ErrorCode;

use crate::api::SERVED;

/// What becomes of a request, or of a part of it, without the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// It is refused with this code.
    Code(ErrorCode),
    /// It is left out of the answer without a word.
    LeftOut,
}

/// One right that an API asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// The API.
    pub api: ApiKey,
    /// To do what.
    pub operation: AclOperation,
    /// With what.
    pub resource: AclResourceType,
    /// Which resource of that kind, or when.
    pub which: &'static str,
    /// What happens without it.
    pub without: Without,
}

use AclOperation::{
    Alter, AlterConfigs, ClusterAction, Create, CreateTokens, Delete, Describe, DescribeConfigs,
    DescribeTokens, IdempotentWrite, Read, Write as WriteOf,
};
use AclResourceType::{Cluster, DelegationToken, Group, Topic, TransactionalId, User};

const fn right(
    api: ApiKey,
    operation: AclOperation,
    resource: AclResourceType,
    which: &'static str,
) -> Right {
    let code = match resource {
        Topic => ErrorCode::TopicAuthorizationFailed,
        Group => ErrorCode::GroupAuthorizationFailed,
        Cluster => ErrorCode::ClusterAuthorizationFailed,
        TransactionalId => ErrorCode::TransactionalIdAuthorizationFailed,
        DelegationToken | User => ErrorCode::DelegationTokenAuthorizationFailed,
    };
    Right { api, operation, resource, which, without: Without::Code(code) }
}

const fn seen(api: ApiKey, operation: AclOperation, resource: AclResourceType, which: &'static str) -> Right {
    Right { api, operation, resource, which, without: Without::LeftOut }
}

const WHOLE: &str = "the request";
const EACH_TOPIC: &str = "each topic";
const EACH_GROUP: &str = "each group";
const THE_GROUP: &str = "the group";
const THE_ID: &str = "the transactional id";

/// Every right, by API; also of APIs that are not served yet, which the page leaves out.
pub const RIGHTS: &[Right] = &[
    right(ApiKey::Produce, WriteOf, Topic, EACH_TOPIC),
    right(ApiKey::Produce, WriteOf, TransactionalId, "with a transactional id"),
    right(ApiKey::Fetch, Read, Topic, EACH_TOPIC),
    // Of a follower Kafka says so topic by topic.
    Right {
        api: ApiKey::Fetch,
        operation: ClusterAction,
        resource: Cluster,
        which: "from a broker",
        without: Without::Code(ErrorCode::TopicAuthorizationFailed),
    },
    right(ApiKey::ListOffsets, Describe, Topic, EACH_TOPIC),
    right(ApiKey::Metadata, Describe, Topic, "each topic that is named"),
    seen(ApiKey::Metadata, Describe, Topic, "each topic, when none is named"),
    right(
        ApiKey::Metadata,
        Create,
        Topic,
        "a topic that is made by being asked for; or Create on the cluster",
    ),
    right(ApiKey::OffsetCommit, Read, Group, THE_GROUP),
    right(ApiKey::OffsetCommit, Read, Topic, EACH_TOPIC),
    right(ApiKey::OffsetFetch, Describe, Group, EACH_GROUP),
    right(ApiKey::OffsetFetch, Describe, Topic, "each topic that is named"),
    seen(ApiKey::OffsetFetch, Describe, Topic, "each topic, when none is named"),
    right(ApiKey::FindCoordinator, Describe, Group, EACH_GROUP),
    right(ApiKey::FindCoordinator, Describe, TransactionalId, "each transactional id"),
    right(ApiKey::JoinGroup, Read, Group, THE_GROUP),
    right(ApiKey::Heartbeat, Read, Group, THE_GROUP),
    right(ApiKey::LeaveGroup, Read, Group, THE_GROUP),
    right(ApiKey::SyncGroup, Read, Group, THE_GROUP),
    right(ApiKey::DescribeGroups, Describe, Group, EACH_GROUP),
    seen(ApiKey::ListGroups, Describe, Group, "each group; or Describe on the cluster for all"),
    right(ApiKey::CreateTopics, Create, Topic, "each topic; or Create on the cluster"),
    seen(ApiKey::CreateTopics, DescribeConfigs, Topic, "the settings in the answer"),
    right(ApiKey::DeleteTopics, Delete, Topic, EACH_TOPIC),
    right(ApiKey::DeleteRecords, Delete, Topic, EACH_TOPIC),
    right(ApiKey::InitProducerId, WriteOf, TransactionalId, "with a transactional id"),
    right(ApiKey::InitProducerId, IdempotentWrite, Cluster, "without one; or Write on any topic"),
    right(ApiKey::AddPartitionsToTxn, WriteOf, TransactionalId, THE_ID),
    right(ApiKey::AddPartitionsToTxn, WriteOf, Topic, EACH_TOPIC),
    right(ApiKey::AddPartitionsToTxn, ClusterAction, Cluster, "from a broker (version 4 and newer)"),
    right(ApiKey::AddOffsetsToTxn, WriteOf, TransactionalId, THE_ID),
    right(ApiKey::AddOffsetsToTxn, Read, Group, THE_GROUP),
    right(ApiKey::EndTxn, WriteOf, TransactionalId, THE_ID),
    right(ApiKey::WriteTxnMarkers, ClusterAction, Cluster, "the request; or Alter on the cluster"),
    right(ApiKey::TxnOffsetCommit, WriteOf, TransactionalId, THE_ID),
    right(ApiKey::TxnOffsetCommit, Read, Group, THE_GROUP),
    right(ApiKey::TxnOffsetCommit, Read, Topic, EACH_TOPIC),
    right(ApiKey::OffsetForLeaderEpoch, Describe, Topic, "each topic; or ClusterAction on the cluster"),
    right(ApiKey::DescribeConfigs, DescribeConfigs, Topic, EACH_TOPIC),
    right(ApiKey::DescribeConfigs, DescribeConfigs, Group, EACH_GROUP),
    right(ApiKey::DescribeConfigs, DescribeConfigs, Cluster, "brokers, their loggers, client metrics"),
    right(ApiKey::AlterConfigs, AlterConfigs, Topic, EACH_TOPIC),
    right(ApiKey::AlterConfigs, AlterConfigs, Group, EACH_GROUP),
    right(ApiKey::AlterConfigs, AlterConfigs, Cluster, "brokers, their loggers, client metrics"),
    right(ApiKey::IncrementalAlterConfigs, AlterConfigs, Topic, EACH_TOPIC),
    right(ApiKey::IncrementalAlterConfigs, AlterConfigs, Group, EACH_GROUP),
    right(ApiKey::IncrementalAlterConfigs, AlterConfigs, Cluster, "brokers, their loggers, client metrics"),
    right(ApiKey::AlterReplicaLogDirs, Alter, Cluster, WHOLE),
    right(ApiKey::DescribeLogDirs, Describe, Cluster, WHOLE),
    right(ApiKey::CreatePartitions, Alter, Topic, EACH_TOPIC),
    right(ApiKey::DeleteGroups, Delete, Group, EACH_GROUP),
    right(ApiKey::ElectLeaders, Alter, Cluster, WHOLE),
    right(ApiKey::AlterPartitionReassignments, Alter, Cluster, WHOLE),
    right(ApiKey::ListPartitionReassignments, Describe, Cluster, WHOLE),
    right(ApiKey::OffsetDelete, Delete, Group, THE_GROUP),
    right(ApiKey::OffsetDelete, Read, Topic, EACH_TOPIC),
    right(ApiKey::DescribeQuorum, Describe, Cluster, WHOLE),
    right(ApiKey::UpdateFeatures, Alter, Cluster, WHOLE),
    right(ApiKey::UnregisterBroker, Alter, Cluster, WHOLE),
    right(ApiKey::ListConfigResources, DescribeConfigs, Cluster, WHOLE),
    right(ApiKey::ConsumerGroupHeartbeat, Read, Group, THE_GROUP),
    right(ApiKey::ConsumerGroupHeartbeat, Describe, Topic, "each topic that is subscribed to by name"),
    right(ApiKey::ConsumerGroupDescribe, Describe, Group, EACH_GROUP),
    right(ApiKey::ConsumerGroupDescribe, Describe, Topic, "each topic that its members have"),
    right(ApiKey::DescribeProducers, Read, Topic, EACH_TOPIC),
    right(ApiKey::DescribeTransactions, Describe, TransactionalId, "each transactional id"),
    seen(ApiKey::DescribeTransactions, Describe, Topic, "each topic of a transaction"),
    seen(ApiKey::ListTransactions, Describe, TransactionalId, "each transactional id"),
    right(ApiKey::DescribeTopicPartitions, Describe, Topic, "each topic that is named"),
    seen(ApiKey::DescribeTopicPartitions, Describe, Topic, "each topic, when none is named"),
    right(ApiKey::DescribeAcls, Describe, Cluster, WHOLE),
    right(ApiKey::CreateAcls, Alter, Cluster, WHOLE),
    right(ApiKey::DeleteAcls, Alter, Cluster, WHOLE),
    right(ApiKey::CreateDelegationToken, CreateTokens, User, "an owner other than the caller"),
    seen(
        ApiKey::DescribeDelegationToken,
        Describe,
        DelegationToken,
        "each token that is not the caller's; or DescribeTokens on its owner",
    ),
    seen(
        ApiKey::DescribeDelegationToken,
        DescribeTokens,
        User,
        "the owner of a token; or Describe on the token",
    ),
    right(ApiKey::ShareGroupHeartbeat, Read, Group, THE_GROUP),
    right(ApiKey::ShareGroupHeartbeat, Describe, Topic, "each topic that is subscribed to"),
    right(ApiKey::ShareGroupDescribe, Describe, Group, EACH_GROUP),
    right(ApiKey::ShareGroupDescribe, Describe, Topic, "each topic that its members have"),
    right(ApiKey::ShareFetch, Read, Group, THE_GROUP),
    right(ApiKey::ShareFetch, Read, Topic, EACH_TOPIC),
    right(ApiKey::ShareAcknowledge, Read, Group, THE_GROUP),
    right(ApiKey::ShareAcknowledge, Read, Topic, EACH_TOPIC),
    right(ApiKey::AddRaftVoter, Alter, Cluster, WHOLE),
    right(ApiKey::RemoveRaftVoter, Alter, Cluster, WHOLE),
    right(ApiKey::InitializeShareGroupState, ClusterAction, Cluster, WHOLE),
    right(ApiKey::ReadShareGroupState, ClusterAction, Cluster, WHOLE),
    right(ApiKey::WriteShareGroupState, ClusterAction, Cluster, WHOLE),
    right(ApiKey::DeleteShareGroupState, ClusterAction, Cluster, WHOLE),
    right(ApiKey::ReadShareGroupStateSummary, ClusterAction, Cluster, WHOLE),
    right(ApiKey::StreamsGroupHeartbeat, Read, Group, THE_GROUP),
    right(ApiKey::StreamsGroupHeartbeat, Describe, Topic, "each topic of the topology"),
    right(ApiKey::StreamsGroupDescribe, Describe, Group, EACH_GROUP),
    right(ApiKey::StreamsGroupDescribe, Describe, Topic, "each topic of the topology"),
    right(ApiKey::DescribeShareGroupOffsets, Describe, Group, EACH_GROUP),
    right(ApiKey::DescribeShareGroupOffsets, Describe, Topic, EACH_TOPIC),
    right(ApiKey::AlterShareGroupOffsets, Read, Group, THE_GROUP),
    right(ApiKey::AlterShareGroupOffsets, Read, Topic, EACH_TOPIC),
    right(ApiKey::DeleteShareGroupOffsets, Delete, Group, THE_GROUP),
    right(ApiKey::DeleteShareGroupOffsets, Read, Topic, EACH_TOPIC),
    right(ApiKey::DescribeClientQuotas, DescribeConfigs, Cluster, WHOLE),
    right(ApiKey::AlterClientQuotas, AlterConfigs, Cluster, WHOLE),
    right(ApiKey::DescribeUserScramCredentials, Describe, Cluster, WHOLE),
    right(ApiKey::AlterUserScramCredentials, Alter, Cluster, WHOLE),
];

/// APIs that ask for no right, and why.
pub const WITHOUT_RIGHTS: &[(ApiKey, &str)] = &[
    (ApiKey::ApiVersions, "everybody may know what is spoken"),
    (ApiKey::SaslHandshake, "the caller is not known yet"),
    (ApiKey::SaslAuthenticate, "the caller is not known yet"),
    (
        ApiKey::DescribeCluster,
        "where brokers are is for everybody; the authorized operations show what else is",
    ),
    (ApiKey::GetTelemetrySubscriptions, "it concerns the caller alone"),
    (ApiKey::PushTelemetry, "it concerns the caller alone"),
    (ApiKey::RenewDelegationToken, "owner and renewers of the token may, and nobody else"),
    (ApiKey::ExpireDelegationToken, "owner and renewers of the token may, and nobody else"),
];

/// APIs that are served and that neither table names: there must be none.
pub fn unnamed() -> Vec<ApiKey> {
    let is_named = |api: &ApiKey| {
        RIGHTS.iter().any(|right| right.api == *api) || WITHOUT_RIGHTS.iter().any(|(named, _)| named == api)
    };
    SERVED.iter().copied().filter(|api| !is_named(api)).collect()
}

/// `docs/authorization.md`.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for api in SERVED {
        for right in RIGHTS.iter().filter(|right| right.api == *api) {
            let without = match right.without {
                Without::Code(code) => format!("{} ({})", code.name(), code.code()),
                Without::LeftOut => "left out of the answer".to_owned(),
            };
            let Right { operation, resource, which, .. } = right;
            // Writing to a text cannot fail.
            let _ = writeln!(text, "| {} | {operation:?} | {resource:?} | {which} | {without} |", api.name());
        }
    }
    text.push_str("\nThese ask for none:\n\n| API | Why |\n|---|---|\n");
    for (api, why) in WITHOUT_RIGHTS {
        let _ = writeln!(text, "| {} | {why} |", api.name());
    }
    text
}

const HEAD: &str = "# Authorisation

`authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer` turns it on. Then nobody may do anything but super
users (`super.users`) and whom rules allow (`ottla acl add`, `kafka-acls.sh`); a rule that denies goes before every rule that allows.
Rules name a principal, a host, an operation, and resources by their names, by the beginnings of their names, or all of a kind.
Read, Write, Delete and Alter imply Describe; AlterConfigs implies DescribeConfigs. Refusals and changes are logged to the target
`ottla::audit`.

The admin plane (gRPC) asks for the same rights as the API that does the same; who calls is known by SASL or a certificate.

Every API of the Kafka protocol and the rights that it asks for, written by `OTTLA_WRITE_DOCS=1 cargo test -p ottla-broker rights`:

| API | Operation | Resource | Which | Without the right |
|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_is_in_one_of_the_tables() {
        assert_eq!(unnamed(), []);
        for (api, _) in WITHOUT_RIGHTS {
            assert!(RIGHTS.iter().all(|right| right.api != *api), "{api:?} is in both");
        }
    }

    #[test]
    fn the_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/authorization.md");
        if std::env::var_os("OTTLA_WRITE_DOCS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(there == markdown(), "OTTLA_WRITE_DOCS=1 cargo test -p ottla-broker rights");
    }
}
