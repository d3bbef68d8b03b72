//! `ottla topic …`.

mod alter;
mod create;
pub(crate) mod delete;
mod describe;
mod list;
mod offsets;
mod trim;

pub(in crate::command) use delete::{ask, confirm};

use clap::Subcommand;
use ottla_proto::admin::TopicResult;

use crate::admin::Admin;
use crate::failure::Failure;
use crate::profile::Session;

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Create topics
    Create(create::Create),
    /// Names of topics
    List(list::List),
    /// Partitions, replicas, offsets and settings of topics
    Describe(describe::Describe),
    /// Add partitions to a topic, change its settings
    Alter(alter::Alter),
    /// Delete topics and all their records
    Delete(delete::Delete),
    /// Delete the oldest records of a partition
    Trim(trim::Trim),
    /// Where partitions begin and end, or where a time is
    Offsets(offsets::Offsets),
}

impl Topic {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        if let Self::Delete(delete) = self {
            delete.confirm()?;
        }
        match self {
            Self::Trim(trim) => {
                trim.confirm()?;
                return trim.run(session).await;
            }
            Self::Offsets(offsets) => return offsets.run(session).await,
            _ => {}
        }
        let admin = Admin::connect(session).await?;
        match self {
            Self::Create(create) => create.run(session, admin).await,
            Self::List(list) => list.run(session, admin).await,
            Self::Describe(describe) => describe.run(session, admin).await,
            Self::Alter(alter) => alter.run(session, admin).await,
            Self::Delete(delete) => delete.run(session, admin).await,
            // Records are the brokers' matter: done above.
            Self::Trim(_) | Self::Offsets(_) => Ok(()),
        }
    }
}

/// Kafka's codes that the commands have words for.
mod code {
    pub(super) const UNKNOWN_TOPIC_OR_PARTITION: i32 = 3;
    pub(super) const INVALID_TOPIC: i32 = 17;
    pub(super) const TOPIC_ALREADY_EXISTS: i32 = 36;
    pub(super) const INVALID_PARTITIONS: i32 = 37;
    pub(super) const INVALID_REPLICATION_FACTOR: i32 = 38;
    pub(super) const INVALID_REPLICA_ASSIGNMENT: i32 = 39;
    pub(super) const INVALID_CONFIG: i32 = 40;
    pub(super) const NOT_CONTROLLER: i32 = 41;
    pub(super) const TOPIC_DELETION_DISABLED: i32 = 73;
}

/// The refusal of one topic in words; `what` is what was not done, "created".
pub(crate) fn refusal(result: &TopicResult, what: &str) -> Failure {
    let name = &result.name;
    let reason = if result.message.is_empty() { result.error.as_str() } else { result.message.as_str() };
    let plain = format!("topic \"{name}\" was not {what}: {reason}");
    match result.error_code {
        code::TOPIC_ALREADY_EXISTS => Failure::new(format!("topic \"{name}\" already exists"))
            .hint("choose another name, or add --if-not-exists"),
        code::UNKNOWN_TOPIC_OR_PARTITION => no_such_topic(name),
        code::INVALID_TOPIC => {
            Failure::new(plain).hint("a name has 1 to 249 of the characters a-z A-Z 0-9 . _ -, and is not . or ..")
        }
        code::INVALID_REPLICATION_FACTOR => Failure::new(plain)
            .hint("there must be as many brokers as replicas: see 'ottla broker list', or lower --replication-factor"),
        code::INVALID_PARTITIONS => Failure::new(plain).hint("partitions can be added, never taken away"),
        code::INVALID_REPLICA_ASSIGNMENT => {
            Failure::new(plain).hint("--assign 1:2,2:1 names known brokers, each once, the same number for each partition")
        }
        code::INVALID_CONFIG => Failure::new(plain).hint("'ottla config reference' lists every setting"),
        code::NOT_CONTROLLER => Failure::new(plain).hint("the controllers elect a leader: try again in a moment"),
        code::TOPIC_DELETION_DISABLED => Failure::new(plain).hint("set delete.topic.enable=true on the brokers"),
        _ => Failure::new(format!("{plain} ({})", result.error)),
    }
}

/// The topic is not there.
fn no_such_topic(name: &str) -> Failure {
    Failure::new(format!("topic \"{name}\" does not exist")).hint("'ottla topic list' shows those that do")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(error_code: i32, error: &str, message: &str) -> TopicResult {
        TopicResult {
            name: "orders".into(),
            error_code,
            error: error.into(),
            message: message.into(),
            ..TopicResult::default()
        }
    }

    #[test]
    fn a_refusal_says_what_and_why_and_what_to_do() {
        let shown = refusal(&result(36, "TOPIC_ALREADY_EXISTS", "x"), "created");
        assert_eq!(
            shown,
            Failure::new("topic \"orders\" already exists")
                .hint("choose another name, or add --if-not-exists")
        );
        let shown = refusal(&result(44, "POLICY_VIOLATION", "too small"), "created").to_string();
        assert_eq!(shown, "topic \"orders\" was not created: too small (POLICY_VIOLATION)");
        let shown = refusal(&result(38, "INVALID_REPLICATION_FACTOR", ""), "created").to_string();
        assert_eq!(shown, "topic \"orders\" was not created: INVALID_REPLICATION_FACTOR");
    }
}
