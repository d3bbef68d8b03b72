//! Connections: requests in flight, their answers in order; who leads and who coordinates.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use ottla_wire::decode::Decoder;
use ottla_wire::encode::encode_request_frame;
use ottla_wire::messages::metadata_request::Topic;
use ottla_wire::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, Message, MetadataRequest, MetadataResponse, Request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// An answer may take this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// One connection, whose answers are read in the order of its requests.
pub(crate) struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    sent: i32,
    answered: i32,
}

impl Connection {
    /// Connects to `HOST:PORT`.
    pub(crate) async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: BufReader::new(reader), writer, sent: 0, answered: 0 })
    }

    /// Sends a request without waiting for its answer.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<()> {
        self.sent += 1;
        let frame = encode_request_frame(R::KEY, version, self.sent, Some("load"), request)?;
        self.writer.write_all(&frame.into_bytes()).await?;
        Ok(())
    }

    /// Reads the answer to the oldest request that has none.
    pub(crate) async fn receive<R: Request>(&mut self, version: i16) -> Result<R::Response> {
        let frame = tokio::time::timeout(PATIENCE, self.frame()).await.context("no answer")??;
        let mut decoder = Decoder::new(frame);
        self.answered += 1;
        ensure!(decoder.i32()? == self.answered, "the answer to another request");
        if R::KEY.response_header_version(version) > 0 {
            decoder.skip_tagged_fields()?;
        }
        Ok(R::Response::decode(&mut decoder, version)?)
    }

    async fn frame(&mut self) -> Result<Bytes> {
        let length = usize::try_from(self.reader.read_i32().await?)?;
        let mut frame = vec![0; length];
        self.reader.read_exact(&mut frame).await?;
        Ok(Bytes::from(frame))
    }

    /// A request and its answer.
    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        self.send(version, request).await?;
        self.receive::<R>(version).await
    }
}

/// The first node of `bootstrap=` that takes a connection.
pub(crate) async fn any(bootstrap: &str) -> Result<Connection> {
    for address in bootstrap.split(',') {
        if let Ok(connection) = Connection::open(address).await {
            return Ok(connection);
        }
    }
    bail!("nobody answers at {bootstrap}")
}

/// The metadata of one topic, once each of its partitions has a leader.
pub(crate) async fn metadata(bootstrap: &str, topic: &str) -> Result<MetadataResponse> {
    let mut connection = any(bootstrap).await?;
    loop {
        let asked = Topic { name: Some(topic.into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![asked]), ..Default::default() };
        let answer = connection.call(12, &request).await?;
        let partitions = answer.topics.first().map(|topic| &topic.partitions);
        if partitions.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.leader_id >= 0)) {
            return Ok(answer);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The leaders of a topic's partitions: address, and partitions.
pub(crate) async fn leaders(bootstrap: &str, topic: &str) -> Result<BTreeMap<String, Vec<i32>>> {
    let answer = metadata(bootstrap, topic).await?;
    let mut leaders: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        let leader = answer.brokers.iter().find(|broker| broker.node_id == partition.leader_id);
        let leader = leader.context("a leader that is no broker")?;
        leaders
            .entry(format!("{}:{}", leader.host, leader.port))
            .or_default()
            .push(partition.partition_index);
    }
    Ok(leaders)
}

/// The address of the coordinator of a group (0) or a transactional id (1).
pub(crate) async fn coordinator(bootstrap: &str, key_type: i8, key: &str) -> Result<String> {
    let mut connection = any(bootstrap).await?;
    loop {
        let request = FindCoordinatorRequest { key: key.into(), key_type, ..Default::default() };
        let found: FindCoordinatorResponse = connection.call(3, &request).await?;
        match found.error_code {
            0 => return Ok(format!("{}:{}", found.host, found.port)),
            // The log of the coordinators is being made.
            3 | 14 | 15 | 16 => tokio::time::sleep(Duration::from_millis(50)).await,
            code => bail!("no coordinator of {key}: {code}"),
        }
    }
}
