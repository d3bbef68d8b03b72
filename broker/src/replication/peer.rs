//! A Kafka-protocol client connection to a peer broker. Requests may be sent ahead; answers come in the order of requests.
//!
//! Each answer is read into a buffer of its own, from which records are sliced without a copy.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ottla_wire::decode::{DecodeError, Decoder};
use ottla_wire::encode::encode_request_frame;
use ottla_wire::messages::{Message, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A peer's answer may be this long, in bytes. A fetch answers at most its `max_bytes` and one batch more; whoever claims
/// more than this does not speak Kafka.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// In front of each answer.
const LENGTH_BYTES: usize = 4;

/// The buffer of an answer grows by at most this much at a time: memory follows what was received, not what was claimed.
const READ_STEP_BYTES: usize = 1 << 20;

/// Why a peer could not be asked. The connection is of no use afterwards.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The address cannot be reached, or the connection broke.
    #[error("the connection to broker {peer} failed: {source}")]
    Io {
        /// Its address.
        peer: String,
        /// The cause.
        source: io::Error,
    },
    /// No answer in time.
    #[error("broker {peer} did not answer within {timeout_ms} ms")]
    Timeout {
        /// Its address.
        peer: String,
        /// How long it was waited for.
        timeout_ms: u128,
    },
    /// The answer cannot be read.
    #[error("broker {peer} answered something else than asked: {what}")]
    Protocol {
        /// Its address.
        peer: String,
        /// What is wrong.
        what: String,
    },
}

/// A connection to a peer broker.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    name: String,
    client_id: String,
    timeout: Duration,
    next_correlation_id: i32,
    /// Correlation id and response header version of requests without an answer.
    unanswered: VecDeque<(i32, i16)>,
    /// What has arrived of the next length (4 bytes) or, with `frame_length`, of the next answer.
    incoming: BytesMut,
    frame_length: Option<usize>,
}

impl Peer {
    /// Connects; `timeout` is also the limit of each later answer.
    pub async fn connect(
        host: &str,
        port: u16,
        client_id: &str,
        timeout: Duration,
    ) -> Result<Self, PeerError> {
        let name = format!("{host}:{port}");
        let connected = tokio::time::timeout(timeout, TcpStream::connect((host, port))).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(PeerError::Io { peer: name, source }),
            Err(_) => return Err(PeerError::Timeout { peer: name, timeout_ms: timeout.as_millis() }),
        };
        stream.set_nodelay(true).map_err(|source| PeerError::Io { peer: name.clone(), source })?;
        Ok(Self {
            stream,
            name,
            client_id: client_id.to_owned(),
            timeout,
            next_correlation_id: 1,
            unanswered: VecDeque::new(),
            incoming: BytesMut::new(),
            frame_length: None,
        })
    }

    /// How many requests have no answer yet.
    pub fn unanswered_count(&self) -> usize {
        self.unanswered.len()
    }

    /// Sends a request; [`Peer::receive`] reads the answer.
    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), PeerError> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        let frame = encode_request_frame(R::KEY, version, correlation_id, Some(&self.client_id), request)
            .map_err(|error| self.protocol(&error.to_string()))?;
        let bytes = frame.into_bytes();
        self.stream.write_all(&bytes).await.map_err(|source| self.io(source))?;
        self.unanswered.push_back((correlation_id, R::KEY.response_header_version(version)));
        Ok(())
    }

    /// Reads the next answer. May be dropped at any time without losing a byte: what has arrived stays here.
    pub async fn receive<R: Request>(&mut self, version: i16) -> Result<R::Response, PeerError> {
        if self.unanswered.is_empty() {
            return Err(self.protocol("an answer without a request"));
        }
        let timeout = self.timeout;
        let frame = match tokio::time::timeout(timeout, self.read_frame()).await {
            Ok(frame) => frame?,
            Err(_) => {
                return Err(PeerError::Timeout { peer: self.name.clone(), timeout_ms: timeout.as_millis() });
            }
        };
        let (correlation_id, header_version) = self.unanswered.pop_front().unwrap_or_default();
        self.decode::<R>(frame, correlation_id, header_version, version)
    }

    /// One request and its answer.
    pub async fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, PeerError> {
        self.send(request, version).await?;
        self.receive::<R>(version).await
    }

    async fn read_frame(&mut self) -> Result<Bytes, PeerError> {
        loop {
            let wanted = self.frame_length.unwrap_or(LENGTH_BYTES);
            if self.incoming.len() < wanted {
                let missing = wanted - self.incoming.len();
                self.incoming.reserve(missing.min(READ_STEP_BYTES));
                let read = (&mut self.stream).take(missing as u64).read_buf(&mut self.incoming).await;
                if read.map_err(|source| self.io(source))? == 0 {
                    return Err(self.io(io::ErrorKind::UnexpectedEof.into()));
                }
                continue;
            }
            let arrived = std::mem::take(&mut self.incoming).freeze();
            if self.frame_length.take().is_some() {
                return Ok(arrived);
            }
            let length = arrived.first_chunk().map_or(-1, |length| i32::from_be_bytes(*length));
            let length = usize::try_from(length).ok().filter(|length| *length <= ANSWER_BYTES_MAX);
            let Some(length) = length else { return Err(self.protocol("a frame of impossible length")) };
            self.frame_length = Some(length);
        }
    }

    fn decode<R: Request>(
        &self,
        mut frame: Bytes,
        correlation_id: i32,
        header_version: i16,
        version: i16,
    ) -> Result<R::Response, PeerError> {
        if frame.len() < 4 || frame.get_i32() != correlation_id {
            return Err(self.protocol("the answer to another request"));
        }
        let mut decoder = Decoder::new(frame);
        let read = |decoder: &mut Decoder| -> Result<R::Response, DecodeError> {
            if header_version >= 1 {
                decoder.skip_tagged_fields()?;
            }
            R::Response::decode(decoder, version)
        };
        read(&mut decoder).map_err(|error| self.protocol(&error.to_string()))
    }

    fn io(&self, source: io::Error) -> PeerError {
        PeerError::Io { peer: self.name.clone(), source }
    }

    fn protocol(&self, what: &str) -> PeerError {
        PeerError::Protocol { peer: self.name.clone(), what: what.to_owned() }
    }
}
