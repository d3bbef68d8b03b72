//! `ottla server [--config FILE]`: one node, out of a property file, the environment, or both.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use ottla_proto::metadata::MetadataRecord;

use crate::allocator;
use crate::failure::{self, Failure, Failures, Told};
use crate::node_config::{self, Findings, LogFormat, NodeConfig, Origin, Problem};
use crate::parse;
use crate::scram::FirstUser;
use crate::server::adopt::Beginning;
use crate::server::node::{Node, Ports};
use crate::server::signals::Stop;
use crate::server::{limits, logging};

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla server --config server.properties --set log.retention.hours=24")]
pub(crate) struct Server {
    /// The property file; Kafka's KRaft names. Without one, the environment has every setting: OTTLA_LOG_DIRS is log.dirs
    #[arg(long, env = "OTTLA_CONFIG", value_name = "FILE", hide_env_values = true)]
    config: Option<PathBuf>,
    /// A setting that wins over the file's and the environment's; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::name_value)]
    set: Vec<(String, String)>,
    /// A user that a new cluster begins with; may be given several times, the same on every controller. Once there is a
    /// cluster it does nothing
    #[arg(
        long,
        env = "OTTLA_BOOTSTRAP_USER",
        hide_env_values = true,
        value_name = "NAME:PASSWORD",
        value_parser = FirstUser::parse
    )]
    bootstrap_user: Vec<FirstUser>,
    /// A new cluster of this one node begins with the partitions that Apache Kafka has left in log.dirs: records, offsets and groups
    /// stay; settings of topics, users and ACLs do not. Stop Kafka first. Once there is a cluster it does nothing
    #[arg(long)]
    adopt: bool,
}

impl Server {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        self.serve().map_err(|error| match failure::code(&error) {
            // Whatever the node had to say last is of the same form as all before.
            Some(code) if logging::is_json() => {
                for message in failure::messages(&error) {
                    tracing::error!("{message}");
                }
                Told(code).into()
            }
            _ => error,
        })
    }

    fn serve(&self) -> anyhow::Result<()> {
        allocator::begin_start();
        let (config, findings) = self.load()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .on_thread_park(allocator::give_back_sometimes)
            .build();
        let runtime = runtime.context("no runtime")?;
        {
            // Spans are sent by the runtime's connections.
            let _within = runtime.enter();
            logging::start(config.log_format, config.otlp_endpoint.as_deref());
        }
        for warning in &findings.warnings {
            tracing::warn!("{}{warning}", self.place(warning));
        }
        limits::take_open_files();
        let mut first = Beginning::from(self.first_records());
        if self.adopt {
            first.adopt(&config)?;
        }
        let result = runtime.block_on(serve(&config, first));
        runtime.shutdown_background();
        result
    }

    fn first_records(&self) -> Vec<MetadataRecord> {
        self.bootstrap_user.iter().flat_map(FirstUser::records).collect()
    }

    /// Before anything is touched: all problems, each on its line.
    fn load(&self) -> anyhow::Result<(NodeConfig, Findings)> {
        let text = match &self.config {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?,
            None => String::new(),
        };
        let (config, findings) = NodeConfig::load(&text, node_config::environment(), &self.set);
        match config {
            Some(config) => Ok((config, findings)),
            None => {
                if findings.wants_json {
                    logging::start(LogFormat::Json, None);
                }
                let mut failures: Vec<_> = findings
                    .problems
                    .iter()
                    .map(|problem| Failure::usage(format!("{}{problem}", self.place(problem))))
                    .collect();
                if self.config.is_none()
                    && let Some(last) = failures.pop()
                {
                    failures.push(last.hint(
                        "name a property file with --config, or set properties as OTTLA_NODE_ID is node.id",
                    ));
                }
                Err(Failures(failures).into())
            }
        }
    }

    /// What stands in front of a message about a setting: the file, where it or nobody made the setting.
    fn place(&self, problem: &Problem) -> String {
        let is_of_the_file = matches!(problem.origin, None | Some(Origin::Line(_)));
        let file = self.config.as_ref().filter(|_| is_of_the_file);
        file.map(|file| format!("{}: ", file.display())).unwrap_or_default()
    }
}

async fn serve(config: &NodeConfig, first: Beginning) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let ports = Ports::bind(config).await?;
    let node = tokio::select! {
        node = Node::start(config, ports, first) => node?,
        () = stop.wait() => {
            tracing::info!("stopped before the broker was registered");
            return Ok(());
        }
    };
    let run = async {
        // A node whose disk fails before the cluster lets it serve will never be ready.
        let failed = node.failed();
        tokio::pin!(failed);
        tokio::select! {
            reason = &mut failed => return reason,
            () = node.ready() => {}
        }
        allocator::end_start();
        tracing::info!(node = config.node_id, "ready");
        failed.await
    };
    let failure = tokio::select! {
        reason = run => Some(reason),
        () = stop.wait() => None,
    };
    match failure {
        // What has failed cannot be stopped in order: the disk is left as after a crash.
        Some(reason) => Err(Failure::new(format!("node {} cannot go on: {reason}", config.node_id)).into()),
        None => {
            tracing::info!("stopping");
            node.shut_down().await;
            Ok(())
        }
    }
}
