//! From a frame to its answer: the one table of what this broker serves, and the types that handlers see.
//!
//! One Kafka API is one file here, named for it. A handler is called when its request has arrived, in the order of the
//! connection; it answers at once, or with a future that waits. What is not in [`routes!`] is not advertised.

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod answer;
mod api_versions;
mod client;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_producers;
mod describe_topic_partitions;
mod describe_transactions;
mod dispatcher;
mod end_txn;
mod fetch;
mod find_coordinator;
mod forward;
mod groups;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod produce_transactional;
mod sasl_authenticate;
mod sasl_handshake;
mod sync_group;
mod txn_offset_commit;
mod write_txn_markers;

pub(crate) use answer::{Answer, Call, Response};
pub(crate) use client::Client;
pub(crate) use dispatcher::{Dispatcher, SERVED};
