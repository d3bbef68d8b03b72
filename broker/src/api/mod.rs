//! From a frame to its answer: the one table of what this broker serves, and the types that handlers see.
//!
//! One Kafka API is one file here, named for it. A handler is called when its request has arrived, in the order of the
//! connection; it answers at once, or with a future that waits. What is not in [`routes!`] is not advertised.

mod alter_client_quotas;
mod alter_configs;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod alter_user_scram_credentials;
mod answer;
mod api_versions;
pub(crate) mod authorization;
mod client;
mod config_changes;
mod create_acls;
mod create_delegation_token;
mod create_partitions;
mod create_topics;
mod delegation_tokens;
mod delete_acls;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_delegation_token;
mod describe_groups;
mod describe_log_dirs;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_user_scram_credentials;
mod dispatcher;
mod elect_leaders;
mod expire_delegation_token;
mod fetch;
mod find_coordinator;
mod forward;
mod get_telemetry_subscriptions;
mod groups;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod push_telemetry;
mod renew_delegation_token;
mod sasl_authenticate;
mod sasl_handshake;
mod sync_group;
mod unregister_broker;
mod update_features;

pub(crate) use answer::{Answer, Call, Response};
pub(crate) use client::Client;
pub(crate) use dispatcher::{Dispatcher, SERVED};
