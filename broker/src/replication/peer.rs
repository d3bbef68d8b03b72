//! A Kafka-protocol client connection to a peer broker. Requests may be sent ahead; answers come in the order of requests.
//!
//! Each answer is read into a buffer of its own, from which records are sliced without a copy.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ottla_wire::decode::{DecodeError, Decoder};
use ottla_wire::encode::encode_request_frame;
use ottla_wire::messages::{Message, Request, SaslAuthenticateRequest, SaslHandshakeRequest};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::security::PeerSecurity;
use crate::security::peer::PeerStream;
use crate::security::sasl::client::ClientAuthentication;

/// A peer's answer may be this long, in bytes. A fetch answers at most its `max_bytes` and one batch more; whoever claims
/// more than this does not speak Kafka.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A connection that is not there after this long is tried anew: behind a partition of the network the system asks ever more rarely,
/// and would find out only long after its end that it is over.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(2);
/// A peer whose machine has not acknowledged a byte or a probe for so long cannot be reached, and the connection is of no use: TCP
/// would wait for minutes, and pause longer and longer. One that is only slow, or stands still, is not meant: its system answers.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(5);
/// A connection on which nothing is said is probed after so long, and as often until it is given up.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The handshake behind which tokens travel in requests.
const HANDSHAKE_VERSION: i16 = 1;
/// The authentication whose answer tells how long it is good for.
const AUTHENTICATE_VERSION: i16 = 2;

/// Whatever a peer says, a login is renewed by then.
const LOGIN_LIFETIME_MAX: Duration = Duration::from_secs(86_400);

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
    /// It does not take this broker for who it is, or is not who it should be.
    #[error("broker {peer} and this one do not authenticate to each other: {what}")]
    Login {
        /// Its address.
        peer: String,
        /// What it said.
        what: String,
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

/// Has the system end a connection to a peer that cannot be reached any more.
fn notice_partitions(socket: &TcpStream) -> io::Result<()> {
    let probes = u32::try_from(UNREACHABLE_AFTER.as_secs() / PROBE_EVERY.as_secs()).unwrap_or(u32::MAX);
    let patience_ms = u32::try_from(UNREACHABLE_AFTER.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, PROBE_EVERY)?;
    sockopt::set_tcp_keepintvl(socket, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(socket, probes)?;
    Ok(sockopt::set_tcp_user_timeout(socket, patience_ms)?)
}

/// A connection to a peer broker.
#[derive(Debug)]
pub struct Peer {
    stream: Box<dyn PeerStream>,
    name: String,
    security: PeerSecurity,
    /// The peer wants another authentication by then (KIP-368); a part of the time is left.
    login_due: Option<Instant>,
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
        security: &PeerSecurity,
    ) -> Result<Self, PeerError> {
        let name = format!("{host}:{port}");
        let connect = async {
            let connecting = TcpStream::connect((host, port));
            let socket = tokio::time::timeout(CONNECT_TIMEOUT_MAX, connecting).await??;
            socket.set_nodelay(true)?;
            notice_partitions(&socket)?;
            security.secure(socket, host).await
        };
        let stream = match tokio::time::timeout(timeout, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(PeerError::Io { peer: name, source }),
            Err(_) => return Err(PeerError::Timeout { peer: name, timeout_ms: timeout.as_millis() }),
        };
        let mut peer = Self {
            stream,
            name,
            security: security.clone(),
            login_due: None,
            client_id: client_id.to_owned(),
            timeout,
            next_correlation_id: 1,
            unanswered: VecDeque::new(),
            incoming: BytesMut::new(),
            frame_length: None,
        };
        peer.log_in().await?;
        Ok(peer)
    }

    /// Says who this broker is, where the peer wants to know.
    async fn log_in(&mut self) -> Result<(), PeerError> {
        self.login_due = None;
        let Some(login) = self.security.login() else { return Ok(()) };
        let refused = |peer: &Self, what: String| PeerError::Login { peer: peer.name.clone(), what };
        let handshake = SaslHandshakeRequest { mechanism: login.mechanism.name().into() };
        self.send_now(&handshake, HANDSHAKE_VERSION).await?;
        let answer = self.receive::<SaslHandshakeRequest>(HANDSHAKE_VERSION).await?;
        if answer.error_code != 0 {
            return Err(refused(self, format!("it does not offer {}", login.mechanism)));
        }
        let began = Instant::now();
        let mut exchange =
            ClientAuthentication::new(&login).map_err(|error| refused(self, error.to_string()))?;
        let mut last = None;
        let mut lifetime_ms = 0;
        while let Some(auth_bytes) =
            exchange.next(last.as_ref()).map_err(|error| refused(self, error.to_string()))?
        {
            self.send_now(&SaslAuthenticateRequest { auth_bytes }, AUTHENTICATE_VERSION).await?;
            let answer = self.receive::<SaslAuthenticateRequest>(AUTHENTICATE_VERSION).await?;
            if answer.error_code != 0 {
                let what = answer.error_message.map(|text| text.to_string()).unwrap_or_default();
                return Err(refused(self, what));
            }
            last = Some(answer.auth_bytes);
            lifetime_ms = answer.session_lifetime_ms;
        }
        if let Some(lifetime_ms) = u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0) {
            let lifetime = Duration::from_millis(lifetime_ms).min(LOGIN_LIFETIME_MAX);
            self.login_due = Some(began + lifetime * 4 / 5);
        }
        Ok(())
    }

    /// How many requests have no answer yet.
    pub fn unanswered_count(&self) -> usize {
        self.unanswered.len()
    }

    /// Sends a request; [`Peer::receive`] reads the answer.
    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), PeerError> {
        if self.unanswered.is_empty() && self.login_due.is_some_and(|due| due <= Instant::now()) {
            self.log_in().await?;
        }
        self.send_now(request, version).await
    }

    async fn send_now<R: Request>(&mut self, request: &R, version: i16) -> Result<(), PeerError> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        let frame = encode_request_frame(R::KEY, version, correlation_id, Some(&self.client_id), request)
            .map_err(|error| self.protocol(&error.to_string()))?;
        let bytes = frame.into_bytes();
        self.stream.write_all(&bytes).await.map_err(|source| self.io(source))?;
        // What is encrypted may still lie in this process.
        self.stream.flush().await.map_err(|source| self.io(source))?;
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
