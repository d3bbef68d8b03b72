//! `ottla group …`: groups of consumers, classic, of KIP-848 and share groups, what they have read and how far they are behind. Asks the brokers by the Kafka
//! protocol, so it works against Apache Kafka too.

mod delete;
mod describe;
mod list;
mod places;
mod reset;

use clap::Subcommand;
use ottla_wire::error_code::ErrorCode;

use crate::client::cluster::Cluster;
use crate::client::{self, ClientError};
use crate::failure::Failure;
use crate::profile::Session;

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Groups with their state and type
    List(list::List),
    /// Members, assignment, and lag per partition and in all
    Describe(describe::Describe),
    /// Move the offsets of a group without members: shows what would change, unless --execute is given
    Reset(reset::Reset),
    /// Delete groups without members, with their offsets
    Delete(delete::Delete),
    /// Delete a group's offsets of a topic
    DeleteOffsets(delete::DeleteOffsets),
}

impl Group {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Delete(delete) => delete.confirm()?,
            Self::DeleteOffsets(delete) => delete.confirm()?,
            Self::List(_) | Self::Describe(_) | Self::Reset(_) => {}
        }
        let mut cluster = Cluster::new(client::bootstrap(session).await?, session.timeout);
        match self {
            Self::List(list) => list.run(session, &mut cluster).await,
            Self::Describe(describe) => describe.run(session, &mut cluster).await,
            Self::Reset(reset) => reset.run(session, &mut cluster).await,
            Self::Delete(delete) => delete.run(session, &mut cluster).await,
            Self::DeleteOffsets(delete) => delete.run(session, &mut cluster).await,
        }
    }
}

fn no_such_group(group: &str) -> Failure {
    Failure::new(format!("group \"{group}\" does not exist"))
        .hint("'ottla group list' shows the groups that do")
}

/// A coordinator's refusal in words; `what` is what was not done, "deleted".
fn refusal(group: &str, what: &str, error: ClientError) -> Failure {
    let ClientError::Refused { code, .. } = &error else { return error.into() };
    let plain = |why: &str| Failure::new(format!("group \"{group}\" was not {what}: {why}"));
    match code {
        ErrorCode::GroupIdNotFound => no_such_group(group),
        ErrorCode::NonEmptyGroup | ErrorCode::UnknownMemberId | ErrorCode::RebalanceInProgress => {
            plain("it has members").hint("stop its consumers; 'ottla group describe' names them")
        }
        ErrorCode::GroupSubscribedToTopic => plain("it still subscribes to the topic")
            .hint("stop its consumers; 'ottla group describe' names them"),
        ErrorCode::GroupAuthorizationFailed | ErrorCode::TopicAuthorizationFailed => {
            plain(code.message()).hint("'ottla acl list' shows who may what")
        }
        _ => plain(&error.to_string()),
    }
}
