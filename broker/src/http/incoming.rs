//! Connections of the HTTP port whose TLS handshake is done, and who calls.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::security::{HttpSecurity, Principal, handshakes};

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

/// Gives connections whose handshake is done.
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
        let (sender, ready) = mpsc::channel(handshakes::HANDSHAKES_MAX);
        let handshake = move |socket, address| handshake(Arc::clone(&security), socket, address);
        tokio::spawn(stop.run_until_cancelled_owned(handshakes::accept("HTTP", listener, sender, handshake)));
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

async fn handshake(
    security: Arc<HttpSecurity>,
    socket: TcpStream,
    address: SocketAddr,
) -> Option<(TlsStream<TcpStream>, HttpCaller)> {
    match TlsAcceptor::from(security.config()).accept(socket).await {
        Ok(stream) => {
            let principal = security.principal(stream.get_ref().1.peer_certificates());
            Some((stream, HttpCaller { address, principal }))
        }
        Err(error) => {
            tracing::info!(%address, %error, "a connection of the HTTP port was refused");
            None
        }
    }
}
