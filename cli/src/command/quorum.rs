//! `ottla quorum …`: the nodes that keep the metadata.

use clap::{Args, Subcommand};
use ottla_proto::admin::QuorumMember;
use serde::Serialize;

use crate::admin::Admin;
use crate::output;
use crate::profile::Session;

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Quorum {
    /// Who leads, who votes, who lags behind
    Status(Status),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla quorum status --output json")]
pub(crate) struct Status {}

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
        let Self::Status(_) = self;
        let mut admin = Admin::connect(session).await?;
        session.output.show(&describe(&mut admin).await?, table)
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
            if member.log_end_offset < 0 { "-".into() } else { member.log_end_offset.to_string() },
            output::optional(member.lag.as_ref()),
        ]
    };
    let voters = document.voters.iter().map(|member| row(member, "voter"));
    let observers = document.observers.iter().map(|member| row(member, "observer"));
    head + "\n" + &output::table(&["NODE", "ROLE", "ENDPOINT", "LOG END", "LAG"], voters.chain(observers))
}
