//! `ottla topic alter NAME`.

use clap::Args;
use ottla_proto::admin::{AlterConfigsRequest, ConfigScope, CreatePartitionsRequest};
use serde::Serialize;

use super::refusal;
use crate::admin::Admin;
use crate::parse;
use crate::profile::Session;

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ottla topic alter orders --partitions 12 --set retention.ms=3600000 --unset cleanup.policy"
)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct Alter {
    /// Name of the topic
    name: String,
    /// How many partitions it shall have: more than now
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..), group = "change")]
    partitions: Option<i32>,
    /// A setting to make
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::name_value, group = "change")]
    set: Vec<(String, String)>,
    /// A setting to take back to its default
    #[arg(long, value_name = "NAME", group = "change")]
    unset: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Document {
    name: String,
    partitions: Option<i32>,
    set: Vec<String>,
    unset: Vec<String>,
}

impl Alter {
    pub(super) async fn run(&self, session: &Session, mut admin: Admin) -> anyhow::Result<()> {
        // The settings first: they are all checked before any is made, and can be taken back.
        if !self.set.is_empty() || !self.unset.is_empty() {
            let request = AlterConfigsRequest {
                scope: ConfigScope::Topic.into(),
                name: self.name.clone(),
                set: self.set.iter().cloned().collect(),
                unset: self.unset.clone(),
                validate_only: false,
            };
            admin.alter_configs(request).await?;
        }
        if let Some(count) = self.partitions {
            let request = CreatePartitionsRequest {
                validate_only: false,
                name: self.name.clone(),
                count,
                assignments: Vec::new(),
            };
            let mut result = admin.create_partitions(request).await?;
            if result.error_code != 0 {
                result.name.clone_from(&self.name);
                return Err(refusal(&result, "altered").into());
            }
        }
        let document = Document {
            name: self.name.clone(),
            partitions: self.partitions,
            set: self.set.iter().map(|(name, _)| name.clone()).collect(),
            unset: self.unset.clone(),
        };
        session.output.done(&document, |document| format!("altered {}", document.name))
    }
}
