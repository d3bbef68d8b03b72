//! One connection to a broker: a request, its answer, the next request.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ottla_broker::security::ClientSecurity;
use ottla_broker::security::peer::PeerStream;
use ottla_wire::api::ApiKey;
use ottla_wire::decode::{DecodeError, Decoder};
use ottla_wire::encode::{Segment, encode_request_frame};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{ApiVersionsRequest, ApiVersionsResponse, Message, Request};
use ottla_wire::text::Text;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::ClientError;

/// What this client calls itself.
const CLIENT_ID: &str = "ottla";
/// Largest answer that is read: fetches are asked for less.
const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes are taken from the socket in pieces of at most this, so that memory follows what has come, not what is claimed.
const READ_BYTES: usize = 1024 * 1024;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that knows which versions its broker speaks.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Box<dyn PeerStream>,
    address: String,
    versions: HashMap<i16, (i16, i16)>,
    /// Finalized levels.
    features: HashMap<String, i16>,
    correlation_id: i32,
    timeout: Duration,
    /// When the session of whoever signed in is about to end (KIP-368): another connection has to take its place.
    over: Option<Instant>,
}

impl Connection {
    /// Connects, makes itself known and asks for versions. `limit` is for each answer.
    pub(crate) async fn open(
        address: &str,
        security: &ClientSecurity,
        limit: Duration,
    ) -> Result<Self, ClientError> {
        let broken = |reason: String| ClientError::Connection { address: address.to_owned(), reason };
        let named = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = named.ok_or_else(|| broken("no HOST:PORT".to_owned()))?;
        let began = Instant::now();
        let connecting = security.connect(host.trim_matches(['[', ']']), port);
        let (stream, lifetime) = match timeout(limit.min(CONNECT_TIMEOUT), connecting).await {
            Ok(Ok(connected)) => connected,
            // Trying again would not help: whoever refuses a password may lock its user out.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(ClientError::Unknown { address: address.to_owned(), reason: error.to_string() });
            }
            Ok(Err(error)) => return Err(broken(error.to_string())),
            Err(_) => return Err(broken("no connection in time".to_owned())),
        };
        let mut connection = Self {
            stream,
            address: address.to_owned(),
            versions: HashMap::new(),
            features: HashMap::new(),
            correlation_id: 0,
            timeout: limit,
            over: lifetime.map(|lifetime| began + lifetime * 4 / 5),
        };
        connection.ask_versions().await?;
        Ok(connection)
    }

    /// Whether another connection has to take its place.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some_and(|over| over <= Instant::now())
    }

    /// Version 3, or 0 for brokers that do not know it: they answer in version 0 with the error in front.
    async fn ask_versions(&mut self) -> Result<(), ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: Text::from_static("ottla"),
            client_software_version: Text::from_static(env!("CARGO_PKG_VERSION")),
        };
        let body = self.round_trip(ApiKey::ApiVersions, 3, &request, self.timeout).await?;
        let unsupported = ErrorCode::UnsupportedVersion.code().to_be_bytes();
        let mut response: ApiVersionsResponse =
            self.decode("ApiVersions", body.clone(), if body.starts_with(&unsupported) { 0 } else { 3 })?;
        if response.error_code == ErrorCode::UnsupportedVersion.code() {
            let body = self.round_trip(ApiKey::ApiVersions, 0, &request, self.timeout).await?;
            response = self.decode("ApiVersions", body, 0)?;
        }
        if response.error_code != 0 {
            return Err(ClientError::refused(format!("{}: ApiVersions", self.address), response.error_code));
        }
        self.features = response
            .finalized_features
            .iter()
            .map(|feature| (feature.name.to_string(), feature.max_version_level))
            .collect();
        self.versions =
            response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(())
    }

    /// The finalized level of a feature; 0: none.
    pub(crate) fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// The newest version that both sides know, and no newer than `newest`.
    pub(crate) fn version(&self, key: ApiKey, newest: i16) -> Result<i16, ClientError> {
        let unknown = || ClientError::Version { address: self.address.clone(), what: key.name() };
        let (first, last) = *self.versions.get(&key.code()).ok_or_else(unknown)?;
        let version = last.min(newest).min(*key.versions().end());
        if version < first.max(*key.versions().start()) { Err(unknown()) } else { Ok(version) }
    }

    /// Asks in the newest common version up to `newest`. What the broker holds on to needs a `limit` that is longer.
    pub(crate) async fn ask_within<R: Request>(
        &mut self,
        request: &R,
        newest: i16,
        limit: Duration,
    ) -> Result<R::Response, ClientError> {
        let version = self.version(R::KEY, newest)?;
        let body = self.round_trip(R::KEY, version, request, limit).await?;
        self.decode(R::KEY.name(), body, version)
    }

    /// Sends a request that has no answer: Produce with acks=0.
    pub(crate) async fn send<R: Request>(&mut self, request: &R, newest: i16) -> Result<(), ClientError> {
        let version = self.version(R::KEY, newest)?;
        let limit = self.timeout;
        match timeout(limit, self.write(R::KEY, version, request)).await {
            Ok(written) => written,
            Err(_) => Err(self.broken(format!("{} was not taken within {limit:?}", R::KEY.name()))),
        }
    }

    async fn round_trip(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &impl Message,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        let exchange = async {
            self.write(key, version, request).await?;
            let mut frame = self.read_frame().await?;
            let header = if key.response_header_version(version) > 0 { "flexible" } else { "plain" };
            let mut decoder = Decoder::new(frame.clone());
            let garbled = |reason: DecodeError| ClientError::Garbled {
                address: self.address.clone(),
                what: key.name(),
                reason: format!("{reason} in the {header} header"),
            };
            let correlation_id = decoder.i32().map_err(garbled)?;
            if header == "flexible" {
                decoder.skip_tagged_fields().map_err(garbled)?;
            }
            if correlation_id != self.correlation_id {
                return Err(
                    self.broken(format!("answer {correlation_id} to request {}", self.correlation_id))
                );
            }
            let body_at = frame.len() - decoder.remaining();
            Ok(frame.split_off(body_at))
        };
        match timeout(limit, exchange).await {
            Ok(done) => done,
            Err(_) => {
                let address = self.address.clone();
                Err(ClientError::Connection {
                    address,
                    reason: format!("no answer to {} within {limit:?}", key.name()),
                })
            }
        }
    }

    async fn write(&mut self, key: ApiKey, version: i16, request: &impl Message) -> Result<(), ClientError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = encode_request_frame(key, version, self.correlation_id, Some(CLIENT_ID), request)
            .map_err(|error| self.broken(format!("{} cannot be written: {error}", key.name())))?;
        for segment in frame {
            if let Segment::Bytes(bytes) = segment {
                self.stream.write_all(&bytes).await.map_err(|error| self.broken(error.to_string()))?;
            }
        }
        // What is encrypted may still lie in this process.
        self.stream.flush().await.map_err(|error| self.broken(error.to_string()))
    }

    async fn read_frame(&mut self) -> Result<Bytes, ClientError> {
        let closed = |error: std::io::Error, address: &str| {
            let reason = match error.kind() {
                std::io::ErrorKind::UnexpectedEof => "the broker closed the connection".to_owned(),
                _ => error.to_string(),
            };
            ClientError::Connection { address: address.to_owned(), reason }
        };
        let length = self.stream.read_i32().await.map_err(|error| closed(error, &self.address))?;
        let length =
            usize::try_from(length).ok().filter(|length| *length <= RESPONSE_BYTES_MAX).ok_or_else(|| {
                let reason = format!("a length of {length}");
                ClientError::Garbled { address: self.address.clone(), what: "a request", reason }
            })?;
        let mut frame = BytesMut::with_capacity(length.min(READ_BYTES));
        while frame.len() < length {
            frame.reserve((length - frame.len()).min(READ_BYTES));
            let left = u64::try_from(length - frame.len()).unwrap_or(u64::MAX);
            let read = (&mut self.stream)
                .take(left)
                .read_buf(&mut frame)
                .await
                .map_err(|error| closed(error, &self.address))?;
            if read == 0 {
                return Err(closed(std::io::ErrorKind::UnexpectedEof.into(), &self.address));
            }
        }
        Ok(frame.freeze())
    }

    fn decode<M: Message>(&self, what: &'static str, body: Bytes, version: i16) -> Result<M, ClientError> {
        let mut decoder = Decoder::new(body);
        M::decode(&mut decoder, version).map_err(|error| ClientError::Garbled {
            address: self.address.clone(),
            what,
            reason: error.to_string(),
        })
    }

    fn broken(&self, reason: String) -> ClientError {
        ClientError::Connection { address: self.address.clone(), reason }
    }
}
