//! TLS of the gRPC listener, by the same properties as Kafka listeners: `listener.name.controller.ssl.*`, or `ssl.*` for all.
//!
//! One certificate serves both ways: a node shows it to who calls and, where the other side asks for one, to whom it calls.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use ottla_proto::transport::Dial;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::server::Connected;

use super::credentials::Credentials;
use super::listener::ListenerSecurity;
use super::principal::Principal;
use super::properties::{ListenerProperties, Properties};
use super::protocol::SecurityProtocol;
use super::{SecurityError, tls};

/// What both sides must speak.
const HTTP2: &[u8] = b"h2";
/// Handshakes under way; further connections wait in the backlog.
const HANDSHAKES_MAX: usize = 256;
/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A pause after the system refused a connection: file handles may be free again.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How often the files of keys and certificates are looked at.
const FILES_CHECK_PERIOD: Duration = Duration::from_secs(5);

/// Who calls over gRPC: found in the extensions of a request.
#[derive(Debug, Clone)]
pub struct GrpcCaller {
    /// From where.
    pub address: SocketAddr,
    /// Who, by the certificate.
    pub principal: Principal,
}

struct Shared {
    name: String,
    properties: Arc<Properties>,
    listener: ListenerSecurity,
    client: ArcSwap<ClientConfig>,
}

/// The encryption of gRPC on a node. Clones share it.
#[derive(Clone)]
pub struct GrpcSecurity(Arc<Shared>);

impl GrpcSecurity {
    /// Reads keys and certificates; `None`: the listener speaks without encryption.
    pub fn open(
        listener: &str,
        protocol: SecurityProtocol,
        properties: &Arc<Properties>,
    ) -> Result<Option<Self>, SecurityError> {
        if !protocol.uses_tls() {
            return Ok(None);
        }
        let opened = ListenerSecurity::open(listener, protocol, properties, Credentials::default());
        let server = opened.map_err(|error| error.of_listener(listener))?;
        let client = client(listener, properties).map_err(|error| error.of_listener(listener))?;
        Ok(Some(Self(Arc::new(Shared {
            name: listener.to_owned(),
            properties: Arc::clone(properties),
            listener: server,
            client: ArcSwap::new(client),
        }))))
    }

    /// Opens channels to other nodes.
    pub fn dial(&self) -> Dial {
        let connector = Connector(Arc::clone(&self.0));
        Dial::new(move |endpoint| endpoint.connect_with_connector_lazy(connector.clone()))
    }

    /// Connections whose handshake is done, until `stop`.
    pub fn incoming(
        &self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> ReceiverStream<io::Result<GrpcStream>> {
        let (sender, receiver) = mpsc::channel(HANDSHAKES_MAX);
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            tokio::select! {
                () = accept(shared, listener, sender) => {}
                () = stop.cancelled() => {}
            }
        });
        ReceiverStream::new(receiver)
    }

    /// Reads keys and certificates anew when their files change, for connections that come after it, until `stop`.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        let mut seen = self.modified();
        loop {
            tokio::select! {
                () = tokio::time::sleep(FILES_CHECK_PERIOD) => {}
                () = stop.cancelled() => return,
            }
            let security = self.clone();
            let now = seen.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let files = security.modified();
                if files != now {
                    security.reload();
                }
                files
            });
            if let Ok(files) = looked.await {
                seen = files;
            }
        }
    }

    fn modified(&self) -> Vec<(PathBuf, Option<SystemTime>)> {
        let view = ListenerProperties::new(Arc::clone(&self.0.properties), &self.0.name);
        let time = |file: PathBuf| {
            let modified = std::fs::metadata(&file).and_then(|metadata| metadata.modified()).ok();
            (file, modified)
        };
        tls::files(&view).into_iter().map(time).collect()
    }

    fn reload(&self) {
        let read = self.0.listener.reload(&self.0.properties).and_then(|()| {
            let client = client(&self.0.name, &self.0.properties)?;
            self.0.client.store(client);
            Ok(())
        });
        match read {
            Ok(()) => tracing::info!(listener = self.0.name, "security was read anew"),
            Err(error) => tracing::error!(listener = self.0.name, %error, "security stays as it was"),
        }
    }
}

fn client(listener: &str, properties: &Arc<Properties>) -> Result<Arc<ClientConfig>, SecurityError> {
    let view = ListenerProperties::new(Arc::clone(properties), listener);
    let mut config = ClientConfig::clone(&*tls::client_config(&view)?);
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Arc::new(config))
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, sender: mpsc::Sender<io::Result<GrpcStream>>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a gRPC connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                continue;
            }
        };
        let (shared, sender) = (Arc::clone(&shared), sender.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(&shared, socket, address)).await {
                // Nobody takes it any more when the server has ended.
                Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
                Ok(Err(error)) => tracing::info!(%address, %error, "a gRPC connection was refused"),
                Err(_) => tracing::info!(%address, "a gRPC handshake took too long"),
            }
            drop(permit);
        });
    }
}

async fn handshake(shared: &Shared, socket: TcpStream, address: SocketAddr) -> io::Result<GrpcStream> {
    socket.set_nodelay(true)?;
    let config = shared.listener.tls().ok_or_else(|| io::Error::other("no certificate"))?;
    let mut config = rustls::ServerConfig::clone(&config);
    config.alpn_protocols = vec![HTTP2.to_vec()];
    let stream = TlsAcceptor::from(Arc::new(config)).accept(socket).await?;
    let subject = tls::subject(stream.get_ref().1.peer_certificates());
    let principal = shared
        .listener
        .principal(subject.as_deref())
        .ok_or_else(|| io::Error::other("no rule of ssl.principal.mapping.rules names the certificate"))?;
    Ok(GrpcStream { inner: Box::new(stream), caller: GrpcCaller { address, principal } })
}

/// An encrypted connection of a caller who is known.
pub struct GrpcStream {
    inner: Box<tokio_rustls::server::TlsStream<TcpStream>>,
    caller: GrpcCaller,
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

/// Opens encrypted connections; keeps no names: each is looked up when it is dialled.
#[derive(Clone)]
struct Connector(Arc<Shared>);

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<ClientStream>>> + Send>>;
type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

impl Service<Uri> for Connector {
    type Response = TokioIo<ClientStream>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let config = self.0.client.load_full();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().ok_or_else(|| io::Error::other("the address has no port"))?;
            let name = ServerName::try_from(host.clone())
                .map_err(|_| io::Error::other(format!("{host} can stand on no certificate")))?;
            let socket = TcpStream::connect((host.as_str(), port)).await?;
            socket.set_nodelay(true)?;
            Ok(TokioIo::new(TlsConnector::from(config).connect(name, socket).await?))
        })
    }
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
