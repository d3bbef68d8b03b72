//! `ottla partition list`.

use clap::Args;
use ottla_proto::admin;
use serde::Serialize;

use crate::admin::Admin;
use crate::output;
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla partition list --under-replicated")]
pub(crate) struct List {
    /// Only those of these topics
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only those of which a replica is not in sync
    #[arg(long)]
    under_replicated: bool,
    /// Only those without a leader
    #[arg(long)]
    offline: bool,
    /// Only those with fewer replicas in sync than min.insync.replicas
    #[arg(long)]
    under_min_isr: bool,
    /// Only those on their way to other brokers
    #[arg(long)]
    moving: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    partitions: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    topic: String,
    partition: i32,
    /// -1: none.
    leader: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    elr: Vec<i32>,
    adding: Vec<i32>,
    removing: Vec<i32>,
    /// Null when the leader could not be asked.
    size_bytes: Option<i64>,
}

impl List {
    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        let topics = admin.describe_topics(self.topics.clone()).await?;
        let under_min_isr =
            if self.under_min_isr { admin.describe_cluster().await?.under_min_isr } else { Vec::new() };
        let is_under_min_isr = |topic: &str, index: i32| {
            under_min_isr.iter().any(|found| found.topic == topic && found.partition == index)
        };
        let mut partitions: Vec<Row> = super::all(&topics)
            .filter(|(_, partition)| !self.under_replicated || partition.isr.len() < partition.replicas.len())
            .filter(|(_, partition)| !self.offline || partition.leader < 0)
            .filter(|(topic, partition)| !self.under_min_isr || is_under_min_isr(topic, partition.partition))
            .filter(|(_, partition)| !self.moving || super::progress::is_moving(partition))
            .map(|(topic, partition)| row(topic, partition))
            .collect();
        partitions.sort_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
        session.output.show(&Document { partitions }, |document| table(&document.partitions))
    }
}

fn row(topic: &str, partition: &admin::Partition) -> Row {
    Row {
        topic: topic.to_owned(),
        partition: partition.partition,
        leader: partition.leader,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        elr: partition.elr.clone(),
        adding: partition.adding_replicas.clone(),
        removing: partition.removing_replicas.clone(),
        size_bytes: partition.size_bytes,
    }
}

fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        vec![
            row.topic.clone(),
            row.partition.to_string(),
            if row.leader < 0 { "none".to_owned() } else { row.leader.to_string() },
            output::list(&row.replicas),
            output::list(&row.isr),
            output::list(&row.adding),
            output::list(&row.removing),
            row.size_bytes.map_or_else(|| "-".to_owned(), output::bytes),
        ]
    };
    let headings = ["TOPIC", "PARTITION", "LEADER", "REPLICAS", "ISR", "ADDING", "REMOVING", "SIZE"];
    output::table(&headings, rows.iter().map(cells))
}
