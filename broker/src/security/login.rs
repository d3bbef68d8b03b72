//! The client's side of a connection's beginning: TCP, TLS, SASL. For whoever calls a listener and is no broker calling a broker.
//!
//! SASL is said in Kafka's own requests, SaslHandshake and SaslAuthenticate, also in front of gRPC: what follows them is HTTP/2.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_wire::decode::Decoder;
use ottla_wire::encode::encode_request_frame;
use ottla_wire::messages::{
    Message, Request, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::peer::PeerStream;
use super::properties::{ListenerProperties, Properties};
use super::protocol::SecurityProtocol;
use super::sasl::client::ClientAuthentication;
use super::sasl::settings::ClientLogin;
use super::{SecurityError, tls};

/// Versions of the two requests: the newest that every broker since Apache Kafka 2.2 has.
const HANDSHAKE_VERSION: i16 = 1;
const AUTHENTICATE_VERSION: i16 = 1;
/// Longest answer in the midst of an authentication, in bytes.
const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// What both sides of gRPC must speak.
const HTTP2: &[u8] = b"h2";
/// The view of a client's properties: no listener has this name.
const CLIENT: &str = "client";

/// How a client makes itself known, and keeps its bytes from others.
#[derive(Clone, Default)]
pub struct ClientSecurity {
    tls: Option<Arc<ClientConfig>>,
    login: Option<ClientLogin>,
}

impl fmt::Debug for ClientSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSecurity")
            .field("encrypted", &self.tls.is_some())
            .field("user", &self.login.as_ref().map(|login| &login.user))
            .finish()
    }
}

impl ClientSecurity {
    /// By the properties of Kafka's clients: `ssl.*`, `sasl.mechanism`, `sasl.jaas.config`. Reads files.
    /// A login that is given counts instead of theirs.
    pub fn open(
        protocol: SecurityProtocol,
        properties: &Arc<Properties>,
        login: Option<&ClientLogin>,
    ) -> Result<Self, SecurityError> {
        let view = ListenerProperties::new(Arc::clone(properties), CLIENT);
        let login = || login.cloned().map_or_else(|| ClientLogin::of_client(&view), Ok);
        Ok(Self {
            tls: protocol.uses_tls().then(|| tls::client_config(&view)).transpose()?,
            login: protocol.uses_sasl().then(login).transpose()?,
        })
    }

    /// As the nodes of a cluster call each other's gRPC listener.
    pub(super) fn of_node(
        listener: &str,
        protocol: SecurityProtocol,
        properties: &Arc<Properties>,
    ) -> Result<Self, SecurityError> {
        let view = ListenerProperties::new(Arc::clone(properties), listener);
        Ok(Self {
            tls: protocol.uses_tls().then(|| tls::client_config(&view)).transpose()?,
            login: protocol.uses_sasl().then(|| ClientLogin::of_node(&view)).transpose()?,
        })
    }

    /// The same in front of gRPC, which TLS has to name.
    #[must_use]
    pub fn for_grpc(self) -> Self {
        let tls = self.tls.map(|config| {
            let mut config = ClientConfig::clone(&config);
            config.alpn_protocols = vec![HTTP2.to_vec()];
            Arc::new(config)
        });
        Self { tls, ..self }
    }

    /// The TLS of it, for what is asked beside the protocols of this crate; `None`: it speaks none.
    pub fn tls(&self) -> Option<ClientConfig> {
        let mut config = ClientConfig::clone(self.tls.as_ref()?);
        config.alpn_protocols.clear();
        Some(config)
    }

    /// TLS to a server that is not asked who it is: for questions that hold no secret, like those of a probe.
    pub fn unchecked_tls() -> Result<ClientConfig, rustls::Error> {
        tls::unchecked::client_config()
    }

    /// Connects and makes itself known. Gives how long the listener takes requests on the connection; `None`: for ever.
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
    ) -> io::Result<(Box<dyn PeerStream>, Option<Duration>)> {
        let socket = TcpStream::connect((host, port)).await?;
        socket.set_nodelay(true)?;
        let mut stream: Box<dyn PeerStream> = match &self.tls {
            None => Box::new(socket),
            Some(config) => {
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| io::Error::other(format!("{host} can stand on no certificate")))?;
                Box::new(TlsConnector::from(Arc::clone(config)).connect(name, socket).await?)
            }
        };
        let lifetime = match &self.login {
            Some(login) => log_in(&mut stream, login).await?,
            None => None,
        };
        Ok((stream, lifetime))
    }
}

/// Says who calls. Gives how long the session lasts (KIP-368); `None`: for ever.
async fn log_in<S>(stream: &mut S, login: &ClientLogin) -> io::Result<Option<Duration>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = SaslHandshakeRequest { mechanism: login.mechanism.name().into() };
    let answer: SaslHandshakeResponse = ask(stream, &handshake, HANDSHAKE_VERSION).await?;
    if answer.error_code != 0 {
        let offered: Vec<&str> = answer.mechanisms.iter().map(|name| &**name).collect();
        let text = format!("{} is not offered there, but {}", login.mechanism, offered.join(", "));
        return Err(refused(&text));
    }
    let mut exchange = ClientAuthentication::new(login).map_err(|error| refused(&error.to_string()))?;
    let mut last: Option<Bytes> = None;
    let mut lifetime_ms = 0;
    while let Some(auth_bytes) = exchange.next(last.as_ref()).map_err(|error| refused(&error.to_string()))? {
        let request = SaslAuthenticateRequest { auth_bytes };
        let answer: SaslAuthenticateResponse = ask(stream, &request, AUTHENTICATE_VERSION).await?;
        if answer.error_code != 0 {
            let text = answer.error_message.map(|text| text.to_string()).unwrap_or_default();
            return Err(refused(if text.is_empty() { "authentication failed" } else { &text }));
        }
        lifetime_ms = answer.session_lifetime_ms;
        last = Some(answer.auth_bytes);
    }
    Ok(u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis))
}

fn refused(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text.to_owned())
}

async fn ask<S, R>(stream: &mut S, request: &R, version: i16) -> io::Result<R::Response>
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: Request,
{
    let frame = encode_request_frame(R::KEY, version, 0, Some("ottla"), request).map_err(io::Error::other)?;
    stream.write_all(&frame.into_bytes()).await?;
    stream.flush().await?;
    let length = usize::try_from(stream.read_i32().await.map_err(unanswered)?).ok();
    let length = length.filter(|length| *length <= ANSWER_BYTES_MAX).ok_or_else(no_sasl)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(unanswered)?;
    let mut decoder = Decoder::new(body.into());
    decoder.i32().map_err(|_| no_sasl())?;
    if R::KEY.response_header_version(version) > 0 {
        decoder.skip_tagged_fields().map_err(|_| no_sasl())?;
    }
    R::Response::decode(&mut decoder, version).map_err(|_| no_sasl())
}

/// A listener without SASL reads the handshake as something else, and closes.
fn unanswered(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => io::Error::new(
            error.kind(),
            "the connection was closed in the midst of SASL: is SASL spoken there?",
        ),
        _ => error,
    }
}

fn no_sasl() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the answer is no answer to a SASL handshake: is SASL spoken there?",
    )
}
