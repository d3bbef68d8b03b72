//! Some nodes that form one cluster.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Output, ottla};
use crate::node::Node;

/// A cluster may take this long to be whole.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Where nodes listen when nobody says.
const LOOPBACK: &str = "127.0.0.1";

/// Nodes 1 to n, each broker and controller, under one temporary directory.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, by id - 1.
    pub nodes: Vec<Node>,
    // After the nodes: their processes end before the directory goes.
    directory: TempDir,
}

impl Cluster {
    /// Starts `count` nodes with `extra` properties and waits until all serve.
    pub fn start(count: usize, extra: &[(&str, &str)]) -> Result<Self> {
        let mut cluster = Self::prepare(count, extra)?;
        for node in &mut cluster.nodes {
            node.start()?;
        }
        cluster.await_brokers(count)?;
        Ok(cluster)
    }

    /// As [`Self::start`], but starts nothing.
    pub fn prepare(count: usize, extra: &[(&str, &str)]) -> Result<Self> {
        Self::prepare_at(&vec![LOOPBACK.to_owned(); count], extra)
    }

    /// As [`Self::prepare`], with one node at each of these addresses.
    pub fn prepare_at(hosts: &[String], extra: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("ottla-test-").tempdir()?;
        let ports = free_ports(3 * hosts.len())?;
        let mut nodes = Vec::new();
        for ((id, host), ports) in (1..).zip(hosts).zip(ports.chunks_exact(3)) {
            let path = directory.path().join(format!("node-{id}"));
            nodes.push(Node::new(id, host, [ports[0], ports[1], ports[2]], path)?);
        }
        let cluster = Self { nodes, directory };
        for node in &cluster.nodes {
            node.write_properties(&cluster.properties(node, extra))?;
        }
        Ok(cluster)
    }

    fn properties(&self, node: &Node, extra: &[(&str, &str)]) -> Vec<(String, String)> {
        let voters: Vec<String> =
            self.nodes.iter().map(|node| format!("{}@{}", node.id, node.grpc())).collect();
        let replicas = self.nodes.len().min(3).to_string();
        let id = node.id;
        let mut properties: Vec<(String, String)> = [
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", id.to_string()),
            ("controller.quorum.voters", voters.join(",")),
            ("listeners", format!("PLAINTEXT://{},CONTROLLER://{}", node.kafka(), node.grpc())),
            ("controller.listener.names", "CONTROLLER".into()),
            ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".into()),
            ("log.dirs", node.data_directory().display().to_string()),
            ("broker.rack", format!("rack{id}")),
            ("offsets.topic.num.partitions", "3".into()),
            ("offsets.topic.replication.factor", replicas.clone()),
            ("group.initial.rebalance.delay.ms", "0".into()),
            ("ottla.http.listener", node.http()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        properties.retain(|(name, _)| extra.iter().all(|(other, _)| other != name));
        properties.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        properties
    }

    /// Adds a node that is told the other nodes' addresses as `controller.quorum.bootstrap.servers`, and not who votes; does
    /// not start it. `extra` wins over what nodes usually have.
    pub fn add_newcomer(&mut self, extra: &[(&str, &str)]) -> Result<i32> {
        let id = self.nodes.iter().map(|node| node.id).max().unwrap_or(0) + 1;
        let ports = free_ports(3)?;
        let node = Node::new(
            id,
            LOOPBACK,
            [ports[0], ports[1], ports[2]],
            self.directory.path().join(format!("node-{id}")),
        )?;
        let servers: Vec<String> = self.nodes.iter().map(Node::grpc).collect();
        let mut properties = self.properties(&node, extra);
        properties.retain(|(name, _)| name != "controller.quorum.voters");
        properties.push(("controller.quorum.bootstrap.servers".to_owned(), servers.join(",")));
        node.write_properties(&properties)?;
        self.nodes.push(node);
        Ok(id)
    }

    /// Adds a node that is a controller only; otherwise as [`Self::add_newcomer`].
    pub fn add_controller(&mut self) -> Result<i32> {
        let id = self.add_newcomer(&[("process.roles", "controller")])?;
        let node = self.node(id)?;
        let path = node.directory().join("server.properties");
        let only = format!("listeners=CONTROLLER://{}", node.grpc());
        let text = std::fs::read_to_string(&path)?;
        let lines: Vec<&str> =
            text.lines().map(|line| if line.starts_with("listeners=") { &only } else { line }).collect();
        std::fs::write(path, lines.join("\n"))?;
        Ok(id)
    }

    /// Writes a node's property file anew.
    pub fn rewrite(&self, id: i32, extra: &[(&str, &str)]) -> Result<()> {
        let node = self.nodes.iter().find(|node| node.id == id).with_context(|| format!("no node {id}"))?;
        node.write_properties(&self.properties(node, extra))
    }

    /// Where the nodes' directories are.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// The node with this id.
    pub fn node(&mut self, id: i32) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.id == id).with_context(|| format!("no node {id}"))
    }

    /// The gRPC addresses of all nodes, for `--server`.
    pub fn server(&self) -> String {
        self.nodes.iter().map(Node::grpc).collect::<Vec<_>>().join(",")
    }

    /// The Kafka addresses of all nodes.
    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(Node::kafka).collect::<Vec<_>>().join(",")
    }

    /// Runs `ottla` against this cluster.
    pub fn ottla(&self, arguments: &[&str]) -> Result<Output> {
        self.ottla_with_input(arguments, b"")
    }

    /// Runs `ottla` against this cluster with something on its standard input.
    pub fn ottla_with_input(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        let server = self.server();
        let mut all = vec!["--server", &server];
        all.extend_from_slice(arguments);
        ottla(&all, input)
    }

    /// Waits until so many brokers serve.
    pub fn await_brokers(&mut self, count: usize) -> Result<()> {
        let count = count.to_string();
        let seconds = format!("{}s", START_TIMEOUT.as_secs());
        let awaited = self.ottla(&["--timeout", &seconds, "cluster", "await", "--brokers", &count])?;
        if awaited.code == Some(0) {
            return Ok(());
        }
        let logs: Vec<String> =
            self.nodes.iter().map(|node| format!("--- node {}\n{}", node.id, node.log())).collect();
        bail!("no {count} brokers: {}\n{}", awaited.stderr, logs.join("\n"))
    }

    /// Creates a topic.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        replication_factor: u32,
        configs: &[&str],
    ) -> Result<()> {
        let (partitions, replication_factor) = (partitions.to_string(), replication_factor.to_string());
        let mut arguments = vec![
            "topic",
            "create",
            name,
            "--partitions",
            &partitions,
            "--replication-factor",
            &replication_factor,
        ];
        for config in configs {
            arguments.extend(["--config", config]);
        }
        self.ottla(&arguments)?.ok().map(drop)
    }

    /// What all nodes have logged.
    pub fn logs(&self) -> String {
        let of = |node: &Node| format!("--- node {}\n{}\n", node.id, node.log());
        self.nodes.iter().map(of).collect()
    }

    /// Waits until every partition of a topic has a leader and so many replicas in sync; gives how long that took.
    pub fn await_in_sync(&self, topic: &str, replicas: usize, limit: Duration) -> Result<Duration> {
        let began = Instant::now();
        let mut behind = String::new();
        eventually(limit, "every replica is in sync", || {
            let described = self.ottla(&["--output", "json", "topic", "describe", topic])?.ok()?.json()?;
            let partitions = described["topics"][0]["partitions"].as_array().cloned().unwrap_or_default();
            let is_whole = |one: &Value| {
                one["isr"].as_array().is_some_and(|isr| isr.len() >= replicas)
                    && one["leader"].as_i64() >= Some(0)
            };
            let of_behind = |one: &Value| (!is_whole(one)).then(|| format!("{one}\n"));
            behind = partitions.iter().filter_map(of_behind).collect();
            Ok((!partitions.is_empty() && behind.is_empty()).then_some(()))
        })
        .with_context(|| format!("not in sync:\n{behind}"))?;
        Ok(began.elapsed())
    }

    /// One partition of a topic, as `topic describe` shows it.
    pub fn partition(&self, topic: &str, partition: usize) -> Result<Value> {
        let described = self.ottla(&["--output", "json", "topic", "describe", topic])?.ok()?.json()?;
        let found = described["topics"][0]["partitions"][partition].clone();
        if found.is_null() {
            bail!("no partition {partition} in {described}");
        }
        Ok(found)
    }

    /// The leader of a partition.
    pub fn leader(&self, topic: &str, partition: usize) -> Result<i32> {
        let leader = self.partition(topic, partition)?["leader"].as_i64().context("no leader field")?;
        Ok(i32::try_from(leader)?)
    }
}

/// A number from the environment, for what a long test does how often.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Tries `check` until it holds; its last failure is shown.
pub fn eventually<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let outcome = check();
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if Instant::now() > deadline {
            return Err(outcome.err().unwrap_or_else(|| anyhow::anyhow!("it did not come about")))
                .with_context(|| format!("not within {limit:?}: {what}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ports that nothing listens on, each given once in this process. They lie below the range from which the system takes the
/// ports of outgoing connections, so that nobody takes one between now and the node's start.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 100)? * 100;
    let mut ports = Vec::new();
    while ports.len() < count {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (first - 20_000 + step) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
        if step > 11_000 {
            bail!("no {count} free ports between 20000 and 32000");
        }
    }
    Ok(ports)
}
