//! Connections of the HTTP port whose TLS handshake is done, and who calls.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::security::{HttpSecurity, Principal};

/// Handshakes under way; further connections wait in the backlog.
const HANDSHAKES_MAX: usize = 256;
/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A pause after the system refused a connection: file handles may be free again.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Whoever opened a connection of the HTTP port.
#[derive(Debug, Clone)]
pub(crate) struct HttpCaller {
    /// From where.
    pub(crate) address: SocketAddr,
    /// Who, by a certificate; `None`: none was shown, or none that a rule names.
    pub(crate) principal: Option<Principal>,
}

impl Connected<IncomingStream<'_, TcpListener>> for HttpCaller {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { address: *stream.remote_addr(), principal: None }
    }
}

impl Connected<IncomingStream<'_, Incoming>> for HttpCaller {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Gives connections whose handshake is done. Handshakes go on beside one another: a caller that says nothing holds up nobody.
pub(super) struct Incoming {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, HttpCaller)>,
    bound: SocketAddr,
}

impl Incoming {
    /// Accepts until `stop`.
    pub(super) fn new(
        listener: TcpListener,
        security: Arc<HttpSecurity>,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let bound = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(HANDSHAKES_MAX);
        tokio::spawn(stop.run_until_cancelled_owned(accept(listener, security, sender)));
        Ok(Self { ready, bound })
    }
}

impl Listener for Incoming {
    type Io = TlsStream<TcpStream>;
    type Addr = HttpCaller;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // It has been told to stop, and so has whoever asks.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<HttpCaller> {
        Ok(HttpCaller { address: self.bound, principal: None })
    }
}

async fn accept(
    listener: TcpListener,
    security: Arc<HttpSecurity>,
    sender: mpsc::Sender<(TlsStream<TcpStream>, HttpCaller)>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection of the HTTP port could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                continue;
            }
        };
        let (security, sender) = (Arc::clone(&security), sender.clone());
        tokio::spawn(async move {
            let handshake = TlsAcceptor::from(security.config()).accept(socket);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => {
                    let principal = security.principal(stream.get_ref().1.peer_certificates());
                    // Nobody takes it any more when the server has ended.
                    drop(sender.send((stream, HttpCaller { address, principal })).await);
                }
                Ok(Err(error)) => {
                    tracing::info!(%address, %error, "a connection of the HTTP port was refused");
                }
                Err(_) => tracing::info!(%address, "a handshake of the HTTP port took too long"),
            }
            drop(permit);
        });
    }
}
