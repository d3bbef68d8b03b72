//! `ottla quorum …`: the nodes that keep the metadata.

use clap::{Args, Subcommand};
use ottla_proto::admin::change_quorum_request::Change;
use ottla_proto::admin::{ChangeQuorumRequest, QuorumMember};
use serde::Serialize;

use crate::admin::Admin;
use crate::output;
use crate::profile::Session;

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Quorum {
    /// Who leads, who votes, who lags behind
    Status(Status),
    /// Give a controller a vote that follows the quorum without one
    Add(Add),
    /// Take a controller's vote away; it may be stopped then
    Remove(Remove),
    /// Have another controller lead
    Transfer(Transfer),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla quorum status --output json")]
pub(crate) struct Status {}

/// The arguments.
#[derive(Debug, Args)]
#[command(
    long_about = "Give a controller a vote that follows the quorum without one.\n\nStart the new node first, with \
                  process.roles=controller (or broker,controller), an empty directory, and the running controllers in \
                  controller.quorum.bootstrap.servers; 'ottla quorum status' then shows it as an observer. A node whose \
                  disk was lost takes the place of its former self.",
    after_help = "Example:\n  ottla quorum add 4"
)]
pub(crate) struct Add {
    /// Id of the node
    node: i32,
    /// Only if it has this disk: its directory id in 'ottla quorum status'
    #[arg(long, value_name = "UUID")]
    directory_id: Option<String>,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(
    long_about = "Take a controller's vote away.\n\nIt follows the metadata on without a vote until it is stopped, and \
                  does not vote again unless it is added. If it leads, another one leads first. A change that would leave \
                  too few running voters is refused.",
    after_help = "Example:\n  ottla quorum remove 4"
)]
pub(crate) struct Remove {
    /// Id of the node
    node: i32,
    /// Only if it votes with this disk: its directory id in 'ottla quorum status'
    #[arg(long, value_name = "UUID")]
    directory_id: Option<String>,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla quorum transfer 2")]
pub(crate) struct Transfer {
    /// Id of the node that is to lead; without one the voter that is furthest
    node: Option<i32>,
}

/// What a change has led to.
#[derive(Debug, Serialize)]
struct ChangeDocument {
    /// -1: not known yet.
    leader_id: i32,
    voters: Vec<i32>,
}

/// State of the metadata quorum.
#[derive(Debug, Serialize)]
pub(super) struct QuorumDocument {
    /// -1: none known.
    pub(super) leader_id: i32,
    pub(super) leader_epoch: i64,
    pub(super) high_watermark: i64,
    pub(super) voters: Vec<Member>,
    pub(super) observers: Vec<Member>,
}

/// One member.
#[derive(Debug, Serialize)]
pub(super) struct Member {
    pub(super) node_id: i32,
    pub(super) directory_id: String,
    pub(super) endpoint: String,
    pub(super) log_end_offset: i64,
    /// How far it is behind the leader; absent when either is not known.
    pub(super) lag: Option<i64>,
    pub(super) last_fetch_ms: i64,
    pub(super) last_caught_up_ms: i64,
}

impl Quorum {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let mut admin = Admin::connect(session).await?;
        let asked = |change: Change, node_id: i32, directory_id: &Option<String>| ChangeQuorumRequest {
            change: change.into(),
            node_id,
            directory_id: directory_id.clone().unwrap_or_default(),
            timeout_ms: 0,
        };
        let request = match self {
            Self::Status(_) => return session.output.show(&describe(&mut admin).await?, table),
            Self::Add(add) => asked(Change::AddVoter, add.node, &add.directory_id),
            Self::Remove(remove) => asked(Change::RemoveVoter, remove.node, &remove.directory_id),
            Self::Transfer(transfer) => asked(Change::TransferLeadership, transfer.node.unwrap_or(-1), &None),
        };
        let reply = admin.change_quorum(request).await?;
        let mut voters = reply.voters;
        voters.sort_unstable();
        session.output.show(&ChangeDocument { leader_id: reply.leader_id, voters }, changed)
    }
}

/// Asks for the state of the quorum.
pub(super) async fn describe(admin: &mut Admin) -> anyhow::Result<QuorumDocument> {
    let reply = admin.describe_quorum().await?;
    let end =
        reply.voters.iter().find(|voter| voter.node_id == reply.leader_id).map(|voter| voter.log_end_offset);
    let members =
        |members: Vec<QuorumMember>| members.into_iter().map(|member| Member::new(member, end)).collect();
    Ok(QuorumDocument {
        leader_id: reply.leader_id,
        leader_epoch: reply.leader_epoch,
        high_watermark: reply.high_watermark,
        voters: members(reply.voters),
        observers: members(reply.observers),
    })
}

impl Member {
    fn new(member: QuorumMember, leader_end: Option<i64>) -> Self {
        let known = |offset: i64| (offset >= 0).then_some(offset);
        let lag =
            leader_end.and_then(known).zip(known(member.log_end_offset)).map(|(end, own)| (end - own).max(0));
        Self {
            node_id: member.node_id,
            directory_id: member.directory_id,
            endpoint: member.endpoint,
            log_end_offset: member.log_end_offset,
            lag,
            last_fetch_ms: member.last_fetch_ms,
            last_caught_up_ms: member.last_caught_up_ms,
        }
    }
}

fn changed(document: &ChangeDocument) -> String {
    let voters: Vec<String> = document.voters.iter().map(ToString::to_string).collect();
    let leader = if document.leader_id < 0 { "none yet".into() } else { document.leader_id.to_string() };
    output::fields(&[("voters", voters.join(", ")), ("leader", leader)])
}

fn table(document: &QuorumDocument) -> String {
    let head = output::fields(&[
        ("leader", if document.leader_id < 0 { "none".into() } else { document.leader_id.to_string() }),
        ("epoch", document.leader_epoch.to_string()),
        ("high watermark", document.high_watermark.to_string()),
    ]);
    let row = |member: &Member, role: &str| {
        let is_leader = member.node_id == document.leader_id;
        vec![
            member.node_id.to_string(),
            if is_leader { "leader".into() } else { role.to_owned() },
            member.endpoint.clone(),
            member.directory_id.clone(),
            if member.log_end_offset < 0 { "-".into() } else { member.log_end_offset.to_string() },
            output::optional(member.lag.as_ref()),
        ]
    };
    let voters = document.voters.iter().map(|member| row(member, "voter"));
    let observers = document.observers.iter().map(|member| row(member, "observer"));
    head + "\n"
        + &output::table(
            &["NODE", "ROLE", "ENDPOINT", "DIRECTORY", "LOG END", "LAG"],
            voters.chain(observers),
        )
}
