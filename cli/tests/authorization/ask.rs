//! For each right the smallest request that asks for it; answers are looked at as text, in which codes are the same everywhere.

use anyhow::{Result, bail, ensure};
use ottla_broker::rights::Right;
use ottla_wire::api::ApiKey;
use ottla_wire::messages::*;

use super::client::Client;

/// There from the beginning.
const TOPIC: &str = "shown-topic";
const GROUP: &str = "shown-group";
/// Never there.
const NO_TOPIC: &str = "no-topic";
const NO_GROUP: &str = "no-group";
const ID: &str = "an-id";
/// Numbers of resources that have configs.
const CONFIG_OF_TOPIC: i8 = 2;
const CONFIG_OF_BROKER: i8 = 4;
const CONFIG_OF_GROUP: i8 = 32;

/// What an answer holds only for those who may see it.
pub(crate) fn marker(right: &Right) -> &'static str {
    match right.api {
        ApiKey::ListGroups => GROUP,
        ApiKey::DescribeDelegationToken => "token_id",
        _ => TOPIC,
    }
}

/// Whether there is a request for it here: groups of other kinds and members of the quorum have tests of their own.
pub(crate) fn has_request(api: ApiKey) -> bool {
    let name = api.name();
    !["Share", "Streams", "Raft"].iter().any(|part| name.contains(part))
}

/// Makes what requests are about.
pub(crate) fn prepare(node: &mut Client) -> Result<()> {
    let topic = create_topics_request::Topic {
        name: TOPIC.into(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 20_000, ..Default::default() };
    let made = node.call(5, &request)?;
    ensure!(made.topics.iter().all(|topic| topic.error_code == 0), "{made:?}");
    let token = node.call(3, &CreateDelegationTokenRequest { max_lifetime_ms: -1, ..Default::default() })?;
    ensure!(token.error_code == 0, "{token:?}");
    // The group's coordinator takes some time to be there.
    for _ in 0..200 {
        let found = node.show(3, &find(GROUP, 0))?;
        let committed = node.show(7, &commit(GROUP))?;
        if found.contains("error_code: 0") && committed.contains("error_code: 0") {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    bail!("no offsets can be committed")
}

fn find(key: &str, key_type: i8) -> FindCoordinatorRequest {
    FindCoordinatorRequest { key: key.into(), key_type, ..Default::default() }
}

fn commit(group: &str) -> OffsetCommitRequest {
    let partition = offset_commit_request::Partition { committed_offset: 1, ..Default::default() };
    let topic = offset_commit_request::Topic {
        name: TOPIC.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

/// Whether the row is the one with other words than "each".
fn is(right: &Right, word: &str) -> bool {
    right.which.contains(word)
}

/// Asks, as whoever it is, for what needs a right; the answer in words.
pub(crate) fn ask(client: &mut Client, right: &Right) -> Result<String> {
    match right.api {
        ApiKey::Produce => {
            let data = produce_request::PartitionData { index: 0, ..Default::default() };
            let topic = produce_request::TopicData {
                name: TOPIC.into(),
                partition_data: vec![data],
                ..Default::default()
            };
            let transactional_id = is(right, "transactional").then(|| ID.into());
            let request =
                ProduceRequest { transactional_id, acks: -1, timeout_ms: 5_000, topic_data: vec![topic] };
            client.show(9, &request)
        }
        ApiKey::Fetch => {
            let partition = fetch_request::Partition {
                partition_max_bytes: 1_000,
                current_leader_epoch: -1,
                ..Default::default()
            };
            let topic = fetch_request::Topic {
                topic: TOPIC.into(),
                partitions: vec![partition],
                ..Default::default()
            };
            let replica_id = if is(right, "broker") { 1 } else { -1 };
            client.show(11, &FetchRequest { replica_id, topics: vec![topic], ..Default::default() })
        }
        ApiKey::ListOffsets => {
            let partition = list_offsets_request::Partition { timestamp: -1, ..Default::default() };
            let topic = list_offsets_request::Topic { name: TOPIC.into(), partitions: vec![partition] };
            client.show(5, &ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() })
        }
        ApiKey::Metadata => {
            let makes = is(right, "made");
            let name = if makes { "made-by-being-asked-for" } else { TOPIC };
            let topic = metadata_request::Topic { name: Some(name.into()), ..Default::default() };
            let topics = (!is(right, "when none")).then(|| vec![topic]);
            let request = MetadataRequest { topics, allow_auto_topic_creation: makes, ..Default::default() };
            client.show(8, &request)
        }
        ApiKey::OffsetCommit => client.show(7, &commit(GROUP)),
        ApiKey::OffsetFetch => {
            let topic = offset_fetch_request::Topic { name: TOPIC.into(), partition_indexes: vec![0] };
            let topics = (!is(right, "when none")).then(|| vec![topic]);
            client.show(7, &OffsetFetchRequest { group_id: GROUP.into(), topics, ..Default::default() })
        }
        ApiKey::FindCoordinator => {
            let (key, key_type) = if is(right, "transactional") { (ID, 1) } else { (GROUP, 0) };
            client.show(3, &find(key, key_type))
        }
        ApiKey::JoinGroup => {
            let protocol = join_group_request::Protocol { name: "range".into(), ..Default::default() };
            let request = JoinGroupRequest {
                group_id: NO_GROUP.into(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 10_000,
                protocol_type: "consumer".into(),
                protocols: vec![protocol],
                ..Default::default()
            };
            client.show(5, &request)
        }
        ApiKey::Heartbeat => {
            client.show(3, &HeartbeatRequest { group_id: NO_GROUP.into(), ..Default::default() })
        }
        ApiKey::LeaveGroup => {
            let member = leave_group_request::Member { member_id: "m".into(), ..Default::default() };
            let request =
                LeaveGroupRequest { group_id: NO_GROUP.into(), members: vec![member], ..Default::default() };
            client.show(3, &request)
        }
        ApiKey::SyncGroup => {
            client.show(3, &SyncGroupRequest { group_id: NO_GROUP.into(), ..Default::default() })
        }
        ApiKey::DescribeGroups => {
            client.show(4, &DescribeGroupsRequest { groups: vec![GROUP.into()], ..Default::default() })
        }
        ApiKey::ListGroups => client.show(4, &ListGroupsRequest::default()),
        ApiKey::DescribeProducers => {
            let topic = describe_producers_request::Topic { name: TOPIC.into(), partition_indexes: vec![0] };
            client.show(0, &DescribeProducersRequest { topics: vec![topic] })
        }
        ApiKey::DescribeTransactions => {
            client.show(0, &DescribeTransactionsRequest { transactional_ids: vec![ID.into()] })
        }
        ApiKey::ConsumerGroupDescribe => {
            let request =
                ConsumerGroupDescribeRequest { group_ids: vec![NO_GROUP.into()], ..Default::default() };
            client.show(0, &request)
        }
        ApiKey::ConsumerGroupHeartbeat => {
            // Of a member that nobody knows: nothing comes about.
            let request = ConsumerGroupHeartbeatRequest {
                group_id: NO_GROUP.into(),
                member_id: "m".into(),
                member_epoch: 7,
                subscribed_topic_names: is(right, "topic").then(|| vec![TOPIC.into()]),
                ..Default::default()
            };
            client.show(0, &request)
        }
        _ => ask_transactional(client, right),
    }
}

fn ask_transactional(client: &mut Client, right: &Right) -> Result<String> {
    let by_broker = is(right, "broker");
    match right.api {
        ApiKey::InitProducerId => {
            let transactional_id = is(right, "with a transactional").then(|| ID.into());
            let request = InitProducerIdRequest {
                transactional_id,
                transaction_timeout_ms: 60_000,
                producer_id: -1,
                producer_epoch: -1,
                ..Default::default()
            };
            client.show(3, &request)
        }
        ApiKey::AddPartitionsToTxn if by_broker => {
            let topic = add_partitions_to_txn_request::Topic { name: TOPIC.into(), partitions: vec![0] };
            let transaction = add_partitions_to_txn_request::Transaction {
                transactional_id: ID.into(),
                producer_id: 1,
                topics: vec![topic],
                ..Default::default()
            };
            client
                .show(4, &AddPartitionsToTxnRequest { transactions: vec![transaction], ..Default::default() })
        }
        ApiKey::AddPartitionsToTxn => {
            let topic =
                add_partitions_to_txn_request::V3AndBelowTopic { name: TOPIC.into(), partitions: vec![0] };
            let request = AddPartitionsToTxnRequest {
                v3_and_below_transactional_id: ID.into(),
                v3_and_below_producer_id: 1,
                v3_and_below_topics: vec![topic],
                ..Default::default()
            };
            client.show(3, &request)
        }
        ApiKey::AddOffsetsToTxn => {
            let request = AddOffsetsToTxnRequest {
                transactional_id: ID.into(),
                producer_id: 1,
                group_id: GROUP.into(),
                ..Default::default()
            };
            client.show(3, &request)
        }
        ApiKey::EndTxn => {
            let request = EndTxnRequest { transactional_id: ID.into(), producer_id: 1, ..Default::default() };
            client.show(3, &request)
        }
        ApiKey::WriteTxnMarkers => {
            let topic =
                write_txn_markers_request::Topic { name: NO_TOPIC.into(), partition_indexes: vec![0] };
            let marker = write_txn_markers_request::Marker {
                producer_id: 1,
                topics: vec![topic],
                ..Default::default()
            };
            client.show(1, &WriteTxnMarkersRequest { markers: vec![marker] })
        }
        ApiKey::TxnOffsetCommit => {
            let topic = txn_offset_commit_request::Topic {
                name: TOPIC.into(),
                partitions: vec![txn_offset_commit_request::Partition::default()],
            };
            let request = TxnOffsetCommitRequest {
                transactional_id: ID.into(),
                group_id: GROUP.into(),
                producer_id: 1,
                generation_id: -1,
                topics: vec![topic],
                ..Default::default()
            };
            client.show(3, &request)
        }
        ApiKey::OffsetForLeaderEpoch => {
            let topic = offset_for_leader_epoch_request::Topic {
                topic: TOPIC.into(),
                partitions: vec![offset_for_leader_epoch_request::Partition::default()],
            };
            client.show(3, &OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] })
        }
        _ => ask_of_topics(client, right),
    }
}

fn ask_of_topics(client: &mut Client, right: &Right) -> Result<String> {
    match right.api {
        ApiKey::CreateTopics => {
            let topic = create_topics_request::Topic {
                name: NO_TOPIC.into(),
                num_partitions: 1,
                replication_factor: 1,
                ..Default::default()
            };
            let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 5_000, validate_only: true };
            client.show(5, &request)
        }
        ApiKey::DeleteTopics => {
            let request = DeleteTopicsRequest {
                topic_names: vec![NO_TOPIC.into()],
                timeout_ms: 5_000,
                ..Default::default()
            };
            client.show(4, &request)
        }
        ApiKey::DeleteRecords => {
            let topic = delete_records_request::Topic {
                name: TOPIC.into(),
                partitions: vec![delete_records_request::Partition::default()],
            };
            client.show(1, &DeleteRecordsRequest { topics: vec![topic], timeout_ms: 5_000 })
        }
        ApiKey::CreatePartitions => {
            let topic =
                create_partitions_request::Topic { name: TOPIC.into(), count: 1, ..Default::default() };
            let request =
                CreatePartitionsRequest { topics: vec![topic], timeout_ms: 5_000, validate_only: true };
            client.show(1, &request)
        }
        ApiKey::DescribeTopicPartitions => {
            let topic = describe_topic_partitions_request::Topic { name: TOPIC.into() };
            let topics = if is(right, "when none") { Vec::new() } else { vec![topic] };
            let request = DescribeTopicPartitionsRequest {
                topics,
                response_partition_limit: 100,
                ..Default::default()
            };
            client.show(0, &request)
        }
        ApiKey::DeleteGroups => client.show(1, &DeleteGroupsRequest { groups_names: vec![NO_GROUP.into()] }),
        ApiKey::OffsetDelete => {
            let topic = offset_delete_request::Topic {
                name: TOPIC.into(),
                partitions: vec![offset_delete_request::Partition { partition_index: 5 }],
            };
            client.show(0, &OffsetDeleteRequest { group_id: GROUP.into(), topics: vec![topic] })
        }
        ApiKey::DescribeConfigs => {
            let (resource_type, name) = configured(right);
            let resource = describe_configs_request::Resource {
                resource_type,
                resource_name: name.into(),
                ..Default::default()
            };
            client.show(1, &DescribeConfigsRequest { resources: vec![resource], ..Default::default() })
        }
        ApiKey::AlterConfigs => {
            let (resource_type, name) = configured(right);
            let resource = alter_configs_request::Resource {
                resource_type,
                resource_name: name.into(),
                ..Default::default()
            };
            client.show(1, &AlterConfigsRequest { resources: vec![resource], validate_only: true })
        }
        ApiKey::IncrementalAlterConfigs => {
            let (resource_type, name) = configured(right);
            let resource = incremental_alter_configs_request::Resource {
                resource_type,
                resource_name: name.into(),
                ..Default::default()
            };
            client.show(0, &IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: true })
        }
        _ => ask_of_the_cluster(client, right),
    }
}

/// Whose configs a row is about.
fn configured(right: &Right) -> (i8, &'static str) {
    if is(right, "topic") {
        (CONFIG_OF_TOPIC, TOPIC)
    } else if is(right, "group") {
        (CONFIG_OF_GROUP, GROUP)
    } else {
        (CONFIG_OF_BROKER, "1")
    }
}

fn ask_of_the_cluster(client: &mut Client, right: &Right) -> Result<String> {
    match right.api {
        ApiKey::AlterReplicaLogDirs => {
            let topic = alter_replica_log_dirs_request::Topic { name: TOPIC.into(), partitions: vec![0] };
            let dir = alter_replica_log_dirs_request::Dir { path: "/nowhere".into(), topics: vec![topic] };
            client.show(1, &AlterReplicaLogDirsRequest { dirs: vec![dir] })
        }
        ApiKey::DescribeLogDirs => client.show(3, &DescribeLogDirsRequest::default()),
        ApiKey::ElectLeaders => {
            let request = ElectLeadersRequest { timeout_ms: 5_000, ..Default::default() };
            client.show(1, &request)
        }
        ApiKey::AlterPartitionReassignments => {
            let request = AlterPartitionReassignmentsRequest { timeout_ms: 5_000, ..Default::default() };
            client.show(0, &request)
        }
        ApiKey::ListPartitionReassignments => {
            let request = ListPartitionReassignmentsRequest { timeout_ms: 5_000, ..Default::default() };
            client.show(0, &request)
        }
        ApiKey::DescribeQuorum => {
            let topic = describe_quorum_request::Topic {
                topic_name: "__cluster_metadata".into(),
                partitions: vec![describe_quorum_request::Partition { partition_index: 0 }],
            };
            client.show(1, &DescribeQuorumRequest { topics: vec![topic] })
        }
        ApiKey::UpdateFeatures => {
            let request =
                UpdateFeaturesRequest { timeout_ms: 5_000, validate_only: true, ..Default::default() };
            client.show(1, &request)
        }
        ApiKey::UnregisterBroker => client.show(0, &UnregisterBrokerRequest { broker_id: 99 }),
        ApiKey::ListConfigResources => client.show(0, &ListConfigResourcesRequest::default()),
        ApiKey::DescribeAcls => {
            let request = DescribeAclsRequest {
                resource_type_filter: 1,
                pattern_type_filter: 1,
                operation: 1,
                permission_type: 1,
                ..Default::default()
            };
            client.show(1, &request)
        }
        ApiKey::CreateAcls => {
            let creation = create_acls_request::Creation {
                resource_type: 2,
                resource_name: NO_TOPIC.into(),
                resource_pattern_type: 3,
                principal: "User:nobody".into(),
                host: "*".into(),
                operation: 3,
                permission_type: 3,
            };
            client.show(1, &CreateAclsRequest { creations: vec![creation] })
        }
        ApiKey::DeleteAcls => {
            let filter = delete_acls_request::Filter {
                resource_type_filter: 2,
                resource_name_filter: Some("of-nobody".into()),
                pattern_type_filter: 3,
                operation: 1,
                permission_type: 1,
                ..Default::default()
            };
            client.show(1, &DeleteAclsRequest { filters: vec![filter] })
        }
        ApiKey::CreateDelegationToken => {
            let request = CreateDelegationTokenRequest {
                owner_principal_type: Some("User".into()),
                owner_principal_name: Some("dave".into()),
                max_lifetime_ms: -1,
                ..Default::default()
            };
            client.show(3, &request)
        }
        ApiKey::DescribeDelegationToken => client.show(3, &DescribeDelegationTokenRequest { owners: None }),
        ApiKey::DescribeClientQuotas => client.show(1, &DescribeClientQuotasRequest::default()),
        ApiKey::AlterClientQuotas => {
            let entity = alter_client_quotas_request::Entity {
                entity_type: "user".into(),
                entity_name: Some("dave".into()),
            };
            let op = alter_client_quotas_request::Op {
                key: "producer_byte_rate".into(),
                value: 1.0,
                remove: false,
            };
            let entry = alter_client_quotas_request::Entry { entity: vec![entity], ops: vec![op] };
            client.show(1, &AlterClientQuotasRequest { entries: vec![entry], validate_only: true })
        }
        ApiKey::DescribeUserScramCredentials => {
            client.show(0, &DescribeUserScramCredentialsRequest::default())
        }
        ApiKey::AlterUserScramCredentials => {
            let deletion =
                alter_user_scram_credentials_request::Deletion { name: "nobody".into(), mechanism: 1 };
            client
                .show(0, &AlterUserScramCredentialsRequest { deletions: vec![deletion], upsertions: vec![] })
        }
        other => bail!("no request for {other:?}: add one"),
    }
}
