//! `ottla group list`.

use clap::Args;
use serde::Serialize;

use crate::client::cluster::Cluster;
use crate::client::groups;
use crate::failure::Failure;
use crate::output;
use crate::parse;
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ottla group list\n  ottla group list --state stable --type consumer --output json"
)]
pub(crate) struct List {
    /// Only names that fit: * is any characters, ? is one; without either, names that hold it
    pattern: Option<String>,
    /// Only groups in this state: empty, stable, preparing-rebalance, completing-rebalance, assigning, reconciling
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<String>,
    /// Only groups of this type: classic, consumer, share or streams
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Document {
    groups: Vec<Summary>,
}

#[derive(Debug, Serialize)]
struct Summary {
    group: String,
    r#type: String,
    state: String,
    protocol_type: String,
}

impl List {
    pub(super) async fn run(&self, session: &Session, cluster: &mut Cluster) -> anyhow::Result<()> {
        // Kafka writes PreparingRebalance.
        let states: Vec<String> = self.states.iter().map(|state| state.replace(['-', '_'], "")).collect();
        let listed = groups::list(cluster, &states, &self.types).await.map_err(Failure::from)?;
        let fits = |name: &str| self.pattern.as_ref().is_none_or(|pattern| parse::matches(pattern, name));
        let groups = listed.into_iter().filter(|group| fits(&group.group_id)).map(|group| Summary {
            group: group.group_id.to_string(),
            r#type: group.group_type.to_ascii_lowercase(),
            state: group.group_state.to_string(),
            protocol_type: group.protocol_type.to_string(),
        });
        session.output.show(&Document { groups: groups.collect() }, table)
    }
}

fn table(document: &Document) -> String {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let row = |group: &Summary| vec![group.group.clone(), or_dash(&group.r#type), or_dash(&group.state)];
    output::table(&["GROUP", "TYPE", "STATE"], document.groups.iter().map(row))
}
