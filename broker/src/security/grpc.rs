//! TLS and SASL of the gRPC listener, by the same properties as Kafka listeners: `listener.name.controller.ssl.*` and
//! `listener.name.controller.sasl.*`, or those for all.
//!
//! One certificate serves both ways: a node shows it to who calls and, where the other side asks for one, to whom it calls.
//! SASL comes before HTTP/2, in Kafka's requests (`login`); so every call of a connection is its user's, and a connection that
//! is opened again authenticates again. A session that is over (KIP-368) ends the connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use ottla_metadata::image::LogIndex;
use ottla_proto::transport::Dial;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;
use tonic::transport::server::Connected;

use super::credentials::Credentials;
use super::listener::ListenerSecurity;
use super::login::ClientSecurity;
use super::node::{Sources, sources};
use super::peer::PeerStream;
use super::principal::Principal;
use super::properties::{ListenerProperties, Properties};
use super::protocol::SecurityProtocol;
use super::publish::{publish_credentials, token_secret};
use super::sasl::server::{Authenticator, Session, Step};
use super::tokens::TokenSecret;
use super::{SecurityError, authority, handshakes, tls};
use crate::controller_link::ImageHandle;
use crate::replica::Clock;

/// What both sides must speak.
const HTTP2: &[u8] = b"h2";
/// How often the files of keys and certificates are looked at.
const FILES_CHECK_PERIOD: Duration = Duration::from_secs(5);

/// Who calls over gRPC: found in the extensions of a request.
#[derive(Debug, Clone)]
pub struct GrpcCaller {
    /// From where.
    pub address: SocketAddr,
    /// Who, by SASL or by the certificate.
    pub principal: Principal,
}

struct Shared {
    name: String,
    protocol: SecurityProtocol,
    properties: Arc<Properties>,
    listener: ListenerSecurity,
    client: Arc<ArcSwap<ClientSecurity>>,
    /// Where the users of SCRAM and the tokens are.
    image: ImageHandle,
    secret: Option<TokenSecret>,
    /// Of which image the listener has the credentials.
    published: Mutex<Option<LogIndex>>,
}

/// The protection of gRPC on a node. Clones share it.
#[derive(Clone)]
pub struct GrpcSecurity(Arc<Shared>);

impl GrpcSecurity {
    /// Reads keys, certificates and users; `None`: the listener speaks without protection.
    pub fn open(
        listener: &str,
        protocol: SecurityProtocol,
        properties: &Arc<Properties>,
        image: ImageHandle,
    ) -> Result<Option<Self>, SecurityError> {
        if protocol == SecurityProtocol::Plaintext {
            return Ok(None);
        }
        let opened = ListenerSecurity::open(listener, protocol, properties, Credentials::default());
        let server = opened.map_err(|error| error.of_listener(listener))?;
        let client = client(listener, protocol, properties).map_err(|error| error.of_listener(listener))?;
        Ok(Some(Self(Arc::new(Shared {
            name: listener.to_owned(),
            protocol,
            properties: Arc::clone(properties),
            listener: server,
            client: Arc::new(ArcSwap::from_pointee(client)),
            image,
            secret: token_secret(properties),
            published: Mutex::new(None),
        }))))
    }

    /// Opens channels to other nodes.
    pub fn dial(&self) -> Dial {
        let connector = Connector(Arc::clone(&self.0.client));
        Dial::new(move |endpoint| endpoint.connect_with_connector_lazy(connector.clone()))
    }

    /// Connections whose handshake is done, until `stop`.
    pub fn incoming(
        &self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> ReceiverStream<io::Result<GrpcStream>> {
        let (sender, receiver) = mpsc::channel(handshakes::HANDSHAKES_MAX);
        let shared = Arc::clone(&self.0);
        let greet = move |socket, address| greet(Arc::clone(&shared), socket, address);
        tokio::spawn(stop.run_until_cancelled_owned(handshakes::accept("gRPC", listener, sender, greet)));
        ReceiverStream::new(receiver)
    }

    /// Reads keys and certificates anew when their files change, for connections that come after it, until `stop`.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        if let Some((url, keys)) = self.0.listener.authority() {
            let view = ListenerProperties::new(Arc::clone(&self.0.properties), &self.0.name);
            let fetching = authority::keep_fresh(url.to_owned(), view, Arc::clone(keys));
            tokio::spawn(stop.clone().run_until_cancelled_owned(fetching));
        }
        let mut seen = self.sources();
        loop {
            tokio::select! {
                () = tokio::time::sleep(FILES_CHECK_PERIOD) => {}
                () = stop.cancelled() => return,
            }
            let security = self.clone();
            let now = seen.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let sources = security.sources();
                if sources != now {
                    security.reload();
                }
                sources
            });
            if let Ok(sources) = looked.await {
                seen = sources;
            }
        }
    }

    fn sources(&self) -> Sources {
        sources([self.0.name.as_str()], &self.0.properties)
    }

    fn reload(&self) {
        let read = self.0.listener.reload(&self.0.properties).and_then(|()| {
            let client = client(&self.0.name, self.0.protocol, &self.0.properties)?;
            self.0.client.store(Arc::new(client));
            Ok(())
        });
        match read {
            Ok(()) => tracing::info!(listener = self.0.name, "security was read anew"),
            Err(error) => tracing::error!(listener = self.0.name, %error, "security stays as it was"),
        }
    }
}

fn client(
    listener: &str,
    protocol: SecurityProtocol,
    properties: &Arc<Properties>,
) -> Result<ClientSecurity, SecurityError> {
    Ok(ClientSecurity::of_node(listener, protocol, properties)?.for_grpc())
}

async fn greet(
    shared: Arc<Shared>,
    socket: TcpStream,
    address: SocketAddr,
) -> Option<io::Result<GrpcStream>> {
    match handshake(&shared, socket, address).await {
        Ok(stream) => return Some(Ok(stream)),
        // Whoever only looks whether somebody listens says nothing and goes.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            tracing::debug!(%address, "a gRPC connection ended before its handshake");
        }
        Err(error) => tracing::info!(%address, %error, "a gRPC connection was refused"),
    }
    None
}

async fn handshake(shared: &Shared, socket: TcpStream, address: SocketAddr) -> io::Result<GrpcStream> {
    socket.set_nodelay(true)?;
    let (mut inner, subject): (Box<dyn PeerStream>, _) = match shared.listener.tls() {
        None => (Box::new(socket), None),
        Some(config) => {
            let mut config = rustls::ServerConfig::clone(&config);
            config.alpn_protocols = vec![HTTP2.to_vec()];
            let stream = TlsAcceptor::from(Arc::new(config)).accept(socket).await?;
            let subject = tls::subject(stream.get_ref().1.peer_certificates());
            (Box::new(stream), subject)
        }
    };
    if shared.listener.sasl().is_some() {
        let session = authenticate(shared, &mut inner, address).await?;
        let ends = session.ends_at_ms.map(|ends_at_ms| {
            let left = u64::try_from(ends_at_ms.saturating_sub(Clock::wall_ms())).unwrap_or(0);
            Box::pin(tokio::time::sleep(Duration::from_millis(left)))
        });
        let caller = GrpcCaller { address, principal: session.principal };
        return Ok(GrpcStream { inner, caller, ends });
    }
    let principal = shared
        .listener
        .principal(subject.as_deref())
        .ok_or_else(|| io::Error::other("no rule of ssl.principal.mapping.rules names the certificate"))?;
    Ok(GrpcStream { inner, caller: GrpcCaller { address, principal }, ends: None })
}

/// Takes Kafka's requests of an authentication until the caller is known.
async fn authenticate(
    shared: &Shared,
    stream: &mut Box<dyn PeerStream>,
    address: SocketAddr,
) -> io::Result<Session> {
    let settings = shared.listener.sasl().ok_or_else(|| io::Error::other("no SASL"))?;
    shared.refresh_credentials();
    let bytes_max = settings.receive_bytes_max;
    let mut authenticator = Authenticator::new(settings, shared.listener.credentials.clone());
    loop {
        let frame = read_frame(stream, bytes_max).await?;
        match authenticator.step(frame, Clock::wall_ms()) {
            Step::PassOn(_) => return Err(io::Error::other("a request in front of SASL")),
            Step::Reply(response) => answer(stream, response).await?,
            Step::Done(response, session) => {
                answer(stream, response).await?;
                return Ok(session);
            }
            Step::Refused(response, reason) => {
                let listener = shared.name.as_str();
                tracing::info!(target: "ottla::audit", listener, %address, reason, "authentication failed");
                tokio::time::sleep(shared.listener.failed(address.ip())).await;
                if let Some(response) = response {
                    answer(stream, response).await?;
                }
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
            }
        }
    }
}

async fn read_frame(stream: &mut Box<dyn PeerStream>, bytes_max: usize) -> io::Result<Bytes> {
    let length = usize::try_from(stream.read_i32().await?).ok().filter(|length| *length <= bytes_max);
    // Whoever begins with HTTP/2 gives a length that no authentication has.
    let length = length.ok_or_else(|| io::Error::other("it does not begin with SASL"))?;
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame.into())
}

async fn answer(stream: &mut Box<dyn PeerStream>, response: crate::api::Response) -> io::Result<()> {
    stream.write_all(&response.segments.into_bytes()).await?;
    stream.flush().await
}

impl Shared {
    /// Callers are few: the metadata is looked at when one comes, not when it changes.
    fn refresh_credentials(&self) {
        let image = self.image.current();
        let mut published = self.published.lock();
        if *published != Some(image.index()) {
            publish_credentials(&self.listener.credentials, self.secret.as_ref(), &image);
            *published = Some(image.index());
        }
    }
}

/// A connection of a caller who is known.
pub struct GrpcStream {
    inner: Box<dyn PeerStream>,
    caller: GrpcCaller,
    /// When the session of the caller is over; `None`: never.
    ends: Option<Pin<Box<Sleep>>>,
}

impl Connected for GrpcStream {
    type ConnectInfo = GrpcCaller;

    fn connect_info(&self) -> GrpcCaller {
        self.caller.clone()
    }
}

impl AsyncRead for GrpcStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the session is over")));
        }
        Pin::new(&mut *self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for GrpcStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(context)
    }
}

/// Opens protected connections; keeps no names: each is looked up when it is dialled.
#[derive(Clone)]
pub(super) struct Connector(Arc<ArcSwap<ClientSecurity>>);

impl ClientSecurity {
    /// A channel of gRPC that connects when it is first used, for a client that is no node.
    pub fn channel(&self, endpoint: &Endpoint) -> tonic::transport::Channel {
        endpoint.connect_with_connector_lazy(self.connector())
    }

    /// As [`Self::channel`], but connects at once, so that what keeps it from doing so is told.
    pub async fn connected_channel(
        &self,
        endpoint: &Endpoint,
    ) -> Result<tonic::transport::Channel, tonic::transport::Error> {
        endpoint.connect_with_connector(self.connector()).await
    }

    fn connector(&self) -> Connector {
        Connector(Arc::new(ArcSwap::from_pointee(self.clone().for_grpc())))
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<Box<dyn PeerStream>>>> + Send>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn PeerStream>>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let security = self.0.load_full();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().ok_or_else(|| io::Error::other("the address has no port"))?;
            let (stream, _) = security.connect(&host, port).await?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
