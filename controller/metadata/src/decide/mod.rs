//! Commands to records: each looks at the image, changes nothing, and says what entry of the log would carry it out and what
//! to answer once that entry is committed.

mod acls;
mod alter_configs;
mod alter_partitions;
mod brokers;
mod client_quotas;
mod create_partitions;
mod create_topics;
mod delegation_tokens;
mod delete_topics;
mod directories;
mod elect_leaders;
mod producer_ids;
mod reassign;
mod scram;
mod update_features;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_access;
#[cfg(test)]
mod tests_brokers;
#[cfg(test)]
mod tests_features;
#[cfg(test)]
mod tests_reassign;

use std::collections::BTreeMap;

use ottla_proto::controller as proto;
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::metadata::metadata_record::Record;
use ottla_wire::error_code::ErrorCode;

use crate::image::MetadataImage;

pub use acls::{ACLS_MAX, acl_filter, supported_operations};
pub use brokers::{RegistrationDecision, fence, register, set_controlled_shutdown, unfence};
pub use client_quotas::{DescribedQuota, QuotaFilter, QuotaMatch, describe_client_quotas};
pub use create_topics::PARTITIONS_MAX;
pub use delegation_tokens::{
    TOKENS_MAX, delegation_tokens_enabled, describe_delegation_tokens, sweep_delegation_tokens,
};
pub use directories::{cordon_directories, fail_directories};
pub use elect_leaders::BACKGROUND_PARTITIONS_MAX;
pub use elect_leaders::{elect_leaderless, rebalance_preferred};
pub use producer_ids::BLOCK_SIZE;
pub use scram::{DescribedScramUser, ITERATIONS_MAX, ITERATIONS_MIN, describe_scram_users};
pub use update_features::default_features;

/// What a decision may look at beside the command.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The committed state, and what was decided since.
    pub image: &'a MetadataImage,
    /// The controller's own static properties: defaults of the cluster.
    pub properties: &'a BTreeMap<String, String>,
    /// Different each time: ids and placement come from it.
    pub seed: u64,
}

/// Records of one entry, in order, and the answer that the entry makes true. No records: nothing needs to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<Reply> {
    /// For the log.
    pub records: Vec<MetadataRecord>,
    /// For whoever asked.
    pub reply: Reply,
}

/// A command as a whole is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kafka's code.
    pub code: ErrorCode,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The wire form.
    pub fn to_failure(&self) -> proto::Failure {
        proto::Failure {
            error_code: i32::from(self.code.code()),
            message: self.message.clone(),
            leader_id: -1,
            leader_endpoint: String::new(),
        }
    }
}

pub(crate) fn record(record: Record) -> MetadataRecord {
    MetadataRecord { record: Some(record) }
}

/// Decides any command.
pub fn decide(
    situation: Situation<'_>,
    command: &proto::command::Command,
) -> Result<Decision<proto::command_reply::Reply>, Refusal> {
    use proto::command::Command;
    use proto::command_reply::Reply;
    fn wrap<T>(decision: Decision<T>, reply: impl FnOnce(T) -> Reply) -> Decision<Reply> {
        Decision { records: decision.records, reply: reply(decision.reply) }
    }
    Ok(match command {
        Command::CreateTopics(command) => {
            wrap(create_topics::decide(situation, command), Reply::CreateTopics)
        }
        Command::DeleteTopics(command) => {
            wrap(delete_topics::decide(situation, command), Reply::DeleteTopics)
        }
        Command::CreatePartitions(command) => {
            wrap(create_partitions::decide(situation, command), Reply::CreatePartitions)
        }
        Command::AlterConfigs(command) => {
            wrap(alter_configs::decide(situation, command), Reply::AlterConfigs)
        }
        Command::AlterPartitions(command) => {
            wrap(alter_partitions::decide(situation, command)?, Reply::AlterPartitions)
        }
        Command::AllocateProducerIds(command) => {
            wrap(producer_ids::decide(situation, command)?, Reply::AllocateProducerIds)
        }
        Command::ElectLeaders(command) => {
            wrap(elect_leaders::decide(situation, command), Reply::ElectLeaders)
        }
        Command::UnregisterBroker(command) => {
            let records = brokers::unregister(situation, *command)?;
            Decision { records, reply: Reply::UnregisterBroker(proto::UnregisterBrokerReply {}) }
        }
        Command::AlterReassignments(command) => {
            wrap(reassign::decide(situation, command), Reply::AlterReassignments)
        }
        Command::UpdateFeatures(command) => {
            wrap(update_features::decide(situation, command), Reply::UpdateFeatures)
        }
        Command::AlterClientQuotas(command) => {
            wrap(client_quotas::decide(situation, command), Reply::AlterClientQuotas)
        }
        Command::CreateAcls(command) => wrap(acls::create(situation, command), Reply::CreateAcls),
        Command::DeleteAcls(command) => wrap(acls::delete(situation, command), Reply::DeleteAcls),
        Command::AlterScramCredentials(command) => {
            wrap(scram::decide(situation, command), Reply::AlterScramCredentials)
        }
        Command::CreateDelegationToken(command) => {
            wrap(delegation_tokens::create(situation, command)?, Reply::DelegationToken)
        }
        Command::RenewDelegationToken(command) => {
            wrap(delegation_tokens::renew(situation, command)?, Reply::DelegationToken)
        }
        Command::ExpireDelegationToken(command) => {
            wrap(delegation_tokens::expire(situation, command)?, Reply::DelegationToken)
        }
        Command::AssignReplicasToDirectories(command) => {
            wrap(directories::assign(situation, command)?, Reply::AssignReplicasToDirectories)
        }
    })
}
