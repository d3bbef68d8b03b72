//! A raw connection to one broker: what is sent and when is in the test's hands, and no client tries anything again.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use ottla_wire::decode::Decoder;
use ottla_wire::encode::{Records, encode_request_frame};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::produce_request::{PartitionData, TopicData};
use ottla_wire::messages::{Message, ProduceRequest, Request};
use ottla_wire::records::{BatchBuilder, BatchOptions};

/// A broker that takes no connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The last version of Produce that names topics.
const PRODUCE_VERSION: i16 = 11;

/// A connection on which requests can be sent ahead; answers come in their order.
#[derive(Debug)]
pub struct Connection(TcpStream);

/// What became of one produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// None: acknowledged.
    pub error: ErrorCode,
    /// Where the records lie, if they were acknowledged.
    pub base_offset: i64,
}

impl Connection {
    /// Connects; each answer must come within `patience`.
    pub fn open(address: &str, patience: Duration) -> Result<Self> {
        let address = address.to_socket_addrs()?.next().context("no address")?;
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self(stream))
    }

    /// Sends a request.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<()> {
        let frame = encode_request_frame(R::KEY, version, 1, Some("test"), request)?;
        self.0.write_all(&frame.into_bytes())?;
        Ok(())
    }

    /// Reads the next answer.
    pub fn receive<R: Request>(&mut self, version: i16) -> Result<R::Response> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length))?];
        self.0.read_exact(&mut answer)?;
        let mut decoder = Decoder::new(Bytes::from(answer));
        ensure!(decoder.i32()? == 1, "the answer to another request");
        if R::KEY.response_header_version(version) > 0 {
            decoder.skip_tagged_fields()?;
        }
        Ok(R::Response::decode(&mut decoder, version)?)
    }

    /// One request and its answer.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        self.send(version, request)?;
        self.receive::<R>(version)
    }

    /// Sends one record to a partition.
    pub fn send_produce(&mut self, topic: &str, partition: i32, acks: i16, value: &str) -> Result<()> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        builder.add(i64::try_from(now.as_millis())?, None, Some(value.as_bytes()), &[])?;
        let request = ProduceRequest {
            acks,
            timeout_ms: 30_000,
            topic_data: vec![TopicData {
                name: topic.into(),
                partition_data: vec![PartitionData {
                    index: partition,
                    records: Some(Records::Bytes(builder.finish()?)),
                }],
                ..Default::default()
            }],
            transactional_id: None,
        };
        self.send(PRODUCE_VERSION, &request)
    }

    /// Reads what became of it.
    pub fn receive_produced(&mut self) -> Result<Produced> {
        let answer = self.receive::<ProduceRequest>(PRODUCE_VERSION)?;
        let topic = answer.responses.into_iter().next().context("no topic in the answer")?;
        let partition = topic.partition_responses.into_iter().next().context("no partition in the answer")?;
        Ok(Produced { error: ErrorCode::from_code(partition.error_code), base_offset: partition.base_offset })
    }

    /// Both.
    pub fn produce(&mut self, topic: &str, partition: i32, acks: i16, value: &str) -> Result<Produced> {
        self.send_produce(topic, partition, acks, value)?;
        self.receive_produced()
    }
}

/// One request and its answer, on a connection of its own; it must come within `patience`.
pub fn call_once<R: Request>(
    address: &str,
    patience: Duration,
    version: i16,
    request: &R,
) -> Result<R::Response> {
    Connection::open(address, patience)?.call(version, request)
}
