//! `ottla topic list [PATTERN]`.

use clap::Args;
use serde::Serialize;

use crate::admin::Admin;
use crate::output;
use crate::parse;
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ottla topic list\n  ottla topic list 'order*' --output json")]
pub(crate) struct List {
    /// Only names that fit: * is any characters, ? is one; without either, names that hold it
    pattern: Option<String>,
    /// Also the topics that Ottla keeps for itself
    #[arg(long)]
    internal: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    topics: Vec<Summary>,
}

#[derive(Debug, Serialize)]
struct Summary {
    name: String,
    id: String,
    internal: bool,
    partitions: i32,
    replication_factor: i32,
}

impl List {
    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        let mut topics: Vec<_> = admin
            .list_topics(self.internal)
            .await?
            .into_iter()
            .filter(|topic| self.pattern.as_ref().is_none_or(|pattern| parse::matches(pattern, &topic.name)))
            .map(|topic| Summary {
                name: topic.name,
                id: topic.id,
                internal: topic.internal,
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
            })
            .collect();
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        session.output.show(&Document { topics }, table)
    }
}

fn table(document: &Document) -> String {
    let row = |topic: &Summary| {
        vec![
            topic.name.clone(),
            topic.partitions.to_string(),
            topic.replication_factor.to_string(),
            topic.id.clone(),
        ]
    };
    output::table(&["NAME", "PARTITIONS", "REPLICAS", "ID"], document.topics.iter().map(row))
}
