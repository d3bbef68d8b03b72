//! Reads a request's header, finds its handler by the one table, and calls it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ottla_wire::api::ApiKey;
use ottla_wire::decode::Decoder;
use ottla_wire::header::RequestHeader;
use ottla_wire::messages::{self, Message};

use super::{Answer, Call, Client};
use crate::context::BrokerContext;
use crate::metrics::Handled;
use crate::quotas::RequestCharge;

/// The target of spans: it is no log event's, so levels of logs neither show nor hide them.
pub(crate) const SPAN_TARGET: &str = "ottla::span";

/// Routes requests to handlers; shared by all connections.
pub(crate) struct Dispatcher {
    pub(crate) context: Arc<BrokerContext>,
}

/// The one table: what stands here is advertised, routed and in the reference page.
macro_rules! routes {
    ($($key:ident => $module:ident($request:ident),)*) => {
        /// Every API that this broker serves, in all the versions of `ottla_wire::api`.
        pub(crate) const SERVED: &[ApiKey] = &[$(ApiKey::$key,)*];

        impl Dispatcher {
            fn route(&self, client: &mut Client, call: Call, decoder: &mut Decoder) -> Answer {
                match call.api_key {
                    $(ApiKey::$key => match decode::<messages::$request>(&call, decoder) {
                        Ok(request) => super::$module::handle(self, client, call, request),
                        Err(reason) => Answer::Close(reason),
                    },)*
                }
            }
        }
    };
}

routes! {
    Produce => produce(ProduceRequest),
    Fetch => fetch(FetchRequest),
    ListOffsets => list_offsets(ListOffsetsRequest),
    Metadata => metadata(MetadataRequest),
    OffsetCommit => offset_commit(OffsetCommitRequest),
    OffsetFetch => offset_fetch(OffsetFetchRequest),
    FindCoordinator => find_coordinator(FindCoordinatorRequest),
    JoinGroup => join_group(JoinGroupRequest),
    Heartbeat => heartbeat(HeartbeatRequest),
    LeaveGroup => leave_group(LeaveGroupRequest),
    SyncGroup => sync_group(SyncGroupRequest),
    DescribeGroups => describe_groups(DescribeGroupsRequest),
    ListGroups => list_groups(ListGroupsRequest),
    ApiVersions => api_versions(ApiVersionsRequest),
    CreateTopics => create_topics(CreateTopicsRequest),
    DeleteTopics => delete_topics(DeleteTopicsRequest),
    DeleteRecords => delete_records(DeleteRecordsRequest),
    InitProducerId => init_producer_id(InitProducerIdRequest),
    AddPartitionsToTxn => add_partitions_to_txn(AddPartitionsToTxnRequest),
    AddOffsetsToTxn => add_offsets_to_txn(AddOffsetsToTxnRequest),
    EndTxn => end_txn(EndTxnRequest),
    WriteTxnMarkers => write_txn_markers(WriteTxnMarkersRequest),
    TxnOffsetCommit => txn_offset_commit(TxnOffsetCommitRequest),
    OffsetForLeaderEpoch => offset_for_leader_epoch(OffsetForLeaderEpochRequest),
    DescribeConfigs => describe_configs(DescribeConfigsRequest),
    AlterConfigs => alter_configs(AlterConfigsRequest),
    AlterReplicaLogDirs => alter_replica_log_dirs(AlterReplicaLogDirsRequest),
    DescribeLogDirs => describe_log_dirs(DescribeLogDirsRequest),
    CreatePartitions => create_partitions(CreatePartitionsRequest),
    DeleteGroups => delete_groups(DeleteGroupsRequest),
    ElectLeaders => elect_leaders(ElectLeadersRequest),
    IncrementalAlterConfigs => incremental_alter_configs(IncrementalAlterConfigsRequest),
    AlterPartitionReassignments => alter_partition_reassignments(AlterPartitionReassignmentsRequest),
    ListPartitionReassignments => list_partition_reassignments(ListPartitionReassignmentsRequest),
    OffsetDelete => offset_delete(OffsetDeleteRequest),
    DescribeQuorum => describe_quorum(DescribeQuorumRequest),
    AddRaftVoter => add_raft_voter(AddRaftVoterRequest),
    RemoveRaftVoter => remove_raft_voter(RemoveRaftVoterRequest),
    UpdateFeatures => update_features(UpdateFeaturesRequest),
    DescribeCluster => describe_cluster(DescribeClusterRequest),
    UnregisterBroker => unregister_broker(UnregisterBrokerRequest),
    GetTelemetrySubscriptions => get_telemetry_subscriptions(GetTelemetrySubscriptionsRequest),
    PushTelemetry => push_telemetry(PushTelemetryRequest),
    ListConfigResources => list_config_resources(ListConfigResourcesRequest),
    SaslHandshake => sasl_handshake(SaslHandshakeRequest),
    SaslAuthenticate => sasl_authenticate(SaslAuthenticateRequest),
    ConsumerGroupHeartbeat => consumer_group_heartbeat(ConsumerGroupHeartbeatRequest),
    ConsumerGroupDescribe => consumer_group_describe(ConsumerGroupDescribeRequest),
    DescribeProducers => describe_producers(DescribeProducersRequest),
    DescribeTransactions => describe_transactions(DescribeTransactionsRequest),
    ListTransactions => list_transactions(ListTransactionsRequest),
    DescribeTopicPartitions => describe_topic_partitions(DescribeTopicPartitionsRequest),
    DescribeAcls => describe_acls(DescribeAclsRequest),
    CreateAcls => create_acls(CreateAclsRequest),
    DeleteAcls => delete_acls(DeleteAclsRequest),
    CreateDelegationToken => create_delegation_token(CreateDelegationTokenRequest),
    RenewDelegationToken => renew_delegation_token(RenewDelegationTokenRequest),
    ExpireDelegationToken => expire_delegation_token(ExpireDelegationTokenRequest),
    DescribeDelegationToken => describe_delegation_token(DescribeDelegationTokenRequest),
    DescribeClientQuotas => describe_client_quotas(DescribeClientQuotasRequest),
    AlterClientQuotas => alter_client_quotas(AlterClientQuotasRequest),
    DescribeUserScramCredentials => describe_user_scram_credentials(DescribeUserScramCredentialsRequest),
    AlterUserScramCredentials => alter_user_scram_credentials(AlterUserScramCredentialsRequest),
    StreamsGroupHeartbeat => streams_group_heartbeat(StreamsGroupHeartbeatRequest),
    StreamsGroupDescribe => streams_group_describe(StreamsGroupDescribeRequest),
    ShareGroupHeartbeat => share_group_heartbeat(ShareGroupHeartbeatRequest),
    ShareGroupDescribe => share_group_describe(ShareGroupDescribeRequest),
    ShareFetch => share_fetch(ShareFetchRequest),
    ShareAcknowledge => share_acknowledge(ShareAcknowledgeRequest),
    InitializeShareGroupState => initialize_share_group_state(InitializeShareGroupStateRequest),
    ReadShareGroupState => read_share_group_state(ReadShareGroupStateRequest),
    WriteShareGroupState => write_share_group_state(WriteShareGroupStateRequest),
    DeleteShareGroupState => delete_share_group_state(DeleteShareGroupStateRequest),
    ReadShareGroupStateSummary => read_share_group_state_summary(ReadShareGroupStateSummaryRequest),
    DescribeShareGroupOffsets => describe_share_group_offsets(DescribeShareGroupOffsetsRequest),
    AlterShareGroupOffsets => alter_share_group_offsets(AlterShareGroupOffsetsRequest),
    DeleteShareGroupOffsets => delete_share_group_offsets(DeleteShareGroupOffsetsRequest),
}

impl Dispatcher {
    pub(crate) fn new(context: Arc<BrokerContext>) -> Arc<Self> {
        Arc::new(Self { context })
    }

    /// Handles one request frame (without its length).
    pub(crate) fn dispatch(&self, client: &mut Client, frame: Bytes) -> Answer {
        let started = Instant::now();
        let request_bytes = frame.len();
        let mut decoder = Decoder::new(frame);
        let header = match RequestHeader::decode(&mut decoder) {
            Ok(header) => header,
            Err(error) => return Answer::Close(format!("not a request header: {error}")),
        };
        let Some(api_key) = ApiKey::from_code(header.api_key).filter(|key| SERVED.contains(key)) else {
            return Answer::Close(format!("API key {} is not served", header.api_key));
        };
        let call = Call {
            api_key,
            version: header.api_version,
            correlation_id: header.correlation_id,
            client_id: header.client_id,
            request_bytes,
            principal: Arc::clone(&client.principal),
            client_host: Arc::clone(&client.host),
            listener: Arc::clone(&client.listener),
        };
        if !api_key.versions().contains(&header.api_version) {
            if api_key == ApiKey::ApiVersions {
                return super::api_versions::unsupported(call);
            }
            return Answer::Close(format!("{api_key:?} version {} is not served", header.api_version));
        }
        let charge = RequestCharge::new(&self.context.quotas, client, &call);
        let span = request_span(&call);
        let answer = span.in_scope(|| self.route(client, call, &mut decoder)).within(span);
        let answer = RequestCharge::apply(charge, client, started, answer);
        client.handled = Handled::new(api_key, started);
        answer
    }
}

/// The span of a request, for traces. Where nobody collects spans, that is one look at a flag.
fn request_span(call: &Call) -> tracing::Span {
    tracing::trace_span!(
        target: SPAN_TARGET,
        "request",
        otel.name = call.api_key.name(),
        otel.kind = "server",
        messaging.system = "kafka",
        version = call.version,
        correlation_id = call.correlation_id,
        client_id = call.client_name(),
        client.address = &*call.client_host,
        principal = %call.principal,
        listener = &*call.listener,
        errors = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    )
}

/// Decodes a body. Bytes behind it are let be, as Kafka does: librdkafka's Metadata 13 has some.
fn decode<M: Message>(call: &Call, decoder: &mut Decoder) -> Result<M, String> {
    M::decode(decoder, call.version)
        .map_err(|error| format!("a malformed {:?} version {}: {error}", call.api_key, call.version))
}
