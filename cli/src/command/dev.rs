//! `ottla dev`: a whole cluster in one process.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use crate::failure::{Failure, Failures};
use crate::node_config::{self, LogFormat, NodeConfig};
use crate::output::{Format, Output, print};
use crate::parse::name_value;
use crate::server::node::{Node, Ports};
use crate::server::{logging, signals::Stop};

/// Ports of the next node are so much higher.
const PORT_STEP: u16 = 100;
/// Nodes of one process; more would only compete for it.
const NODES_MAX: u16 = 9;

/// Run a whole cluster in this process, for development
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ottla dev --nodes 3 --ephemeral")]
pub(crate) struct Dev {
    /// Number of nodes; each is a broker, the first up to three (of five or more: five) are controllers too.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: u16,
    /// Where the data is kept.
    #[arg(long, value_name = "DIR", default_value = "ottla-data", conflicts_with = "ephemeral")]
    data: PathBuf,
    /// Keep the data in a temporary directory and remove it at the end.
    #[arg(long)]
    ephemeral: bool,
    /// Kafka port of the first node; 0: free ones.
    #[arg(long, default_value_t = 9092)]
    kafka_port: u16,
    /// gRPC port of the first node; 0: free ones.
    #[arg(long, default_value_t = 9093)]
    grpc_port: u16,
    /// HTTP port of the first node; 0: free ones.
    #[arg(long, default_value_t = 9644)]
    http_port: u16,
    /// A property for every node.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_value)]
    set: Vec<(String, String)>,
}

/// A data directory that goes with the process.
struct Ephemeral(PathBuf);

impl Drop for Ephemeral {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl Dev {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<()> {
        logging::start(LogFormat::Text, None);
        let ephemeral = self
            .ephemeral
            .then(|| Ephemeral(std::env::temp_dir().join(format!("ottla-dev-{}", std::process::id()))));
        let data = ephemeral.as_ref().map_or(&self.data, |ephemeral| &ephemeral.0);
        std::fs::create_dir_all(data).map_err(|error| {
            Failure::new(format!("cannot create {}: {error}", data.display())).hint("name another --data")
        })?;
        let data = std::path::absolute(data)?;
        crate::server::limits::take_open_files();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
        let outcome = runtime.block_on(self.serve(&data, output));
        drop(runtime);
        drop(ephemeral);
        outcome
    }

    async fn serve(&self, data: &std::path::Path, output: Output) -> anyhow::Result<()> {
        let mut stop = Stop::new()?;
        let configs = self.configs(data)?;
        let mut starting = Vec::new();
        for config in &configs {
            starting.push((config, Ports::bind(config).await?));
        }
        let started = starting.into_iter().map(|(config, ports)| async move {
            let node = Node::start(config, ports, Vec::new()).await?;
            node.ready().await;
            Ok::<_, anyhow::Error>(node)
        });
        let nodes: Vec<Node> = tokio::select! {
            nodes = futures_util::future::try_join_all(started) => nodes?,
            () = stop.wait() => return Ok(()),
        };
        announce(&nodes, output)?;
        let failed = futures_util::future::select_all(nodes.iter().map(|node| Box::pin(node.failed())));
        let failure = tokio::select! {
            (reason, node, _) = failed => Some((node + 1, reason)),
            () = stop.wait() => None,
        };
        if let Some((node, reason)) = failure {
            return Err(Failure::new(format!("node {node} cannot go on: {reason}")).into());
        }
        let all = futures_util::future::join_all(nodes.into_iter().map(Node::shut_down));
        tokio::select! {
            _ = all => {}
            () = stop.wait() => {}
        }
        Ok(())
    }

    fn configs(&self, data: &std::path::Path) -> anyhow::Result<Vec<NodeConfig>> {
        let ports = self.ports()?;
        let controllers = match self.nodes {
            0..=2 => 1,
            3..=4 => 3,
            _ => 5,
        };
        let voters: Vec<String> = (1..=controllers)
            .zip(&ports)
            .map(|(id, [_, grpc, _])| format!("{id}@127.0.0.1:{grpc}"))
            .collect();
        let replicas = self.nodes.min(3);
        let isr = if replicas == 3 { 2 } else { 1 };
        let mut configs = Vec::new();
        for (id, [kafka, grpc, http]) in (1..=self.nodes).zip(ports) {
            let roles = if id <= controllers { "broker,controller" } else { "broker" };
            // All nodes stop together: nobody would be left to take leadership over.
            let text = format!(
                "process.roles={roles}\nnode.id={id}\ncontroller.quorum.voters={}\n\
                 listeners=PLAINTEXT://127.0.0.1:{kafka},CONTROLLER://127.0.0.1:{grpc}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{kafka}\ncontroller.listener.names=CONTROLLER\n\
                 listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
                 log.dirs={}\nbroker.rack=rack{id}\nottla.http.listener=127.0.0.1:{http}\n\
                 default.replication.factor={replicas}\nmin.insync.replicas={isr}\n\
                 offsets.topic.replication.factor={replicas}\ngroup.initial.rebalance.delay.ms=0\n\
                 transaction.state.log.replication.factor={replicas}\ntransaction.state.log.min.isr={isr}\n\
                 share.coordinator.state.topic.replication.factor={replicas}\n\
                 share.coordinator.state.topic.min.isr={isr}\n",
                voters.join(","),
                data.join(format!("node-{id}")).display(),
            );
            let (config, findings) = NodeConfig::load(&text, node_config::environment(), &self.set);
            Failures::check(
                findings.problems.iter().map(|problem| Failure::usage(problem.to_string())).collect(),
            )?;
            configs.extend(config);
        }
        Ok(configs)
    }

    /// Kafka, gRPC and HTTP port of each node.
    fn ports(&self) -> anyhow::Result<Vec<[u16; 3]>> {
        // Sockets are held until all are chosen, so that no free port is chosen twice.
        let mut held = Vec::new();
        let mut port = |first: u16, node: u16| -> anyhow::Result<u16> {
            if first != 0 {
                return first.checked_add(PORT_STEP * node).context("the ports go beyond 65535");
            }
            let socket = std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?;
            let free = socket.local_addr()?.port();
            held.push(socket);
            Ok(free)
        };
        (0..self.nodes)
            .map(|node| {
                Ok([port(self.kafka_port, node)?, port(self.grpc_port, node)?, port(self.http_port, node)?])
            })
            .collect()
    }
}

/// One line when everything can serve; on a terminal a few commands to try.
fn announce(nodes: &[Node], output: Output) -> anyhow::Result<()> {
    let kafka: Vec<&str> = nodes.iter().flat_map(|node| &node.kafka).map(String::as_str).collect();
    let grpc: Vec<&str> = nodes.iter().filter_map(|node| node.grpc.as_deref()).collect();
    let http: Vec<&str> = nodes.iter().filter_map(|node| node.http.as_deref()).collect();
    if output.format == Format::Json {
        return print(&format!("{}\n", json!({ "ready": true, "kafka": kafka, "grpc": grpc, "http": http })));
    }
    let (kafka, grpc, http) = (kafka.join(","), grpc.join(","), http.join(","));
    print(&format!("ready  kafka={kafka}  grpc={grpc}  http={http}\n"))?;
    if std::io::stdout().is_terminal() {
        print(
            "\ntry:\n  ottla topic create hello --partitions 3\n  echo 'first words' | ottla produce hello\n  ottla consume hello --from beginning --exit-at-end\n",
        )?;
    }
    Ok(())
}
