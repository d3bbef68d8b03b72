//! Binds a Kafka listener and accepts its connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ConnectionLimits;
use super::connection::{ConnectionContext, Ending, serve};
use super::frame_reader::FrameError;
use crate::security::SecurityProtocol;

/// How long accepting pauses when the process has no file handle left: the connections it has go on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener needs to know beside its address.
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    /// Name of the listener (`PLAINTEXT`), upper case.
    pub name: String,
    /// Whether it is encrypted, and whether clients must authenticate.
    pub protocol: SecurityProtocol,
    /// Where to bind, `host:port`; an empty host is every address.
    pub bind: String,
    /// `socket.listen.backlog.size`.
    pub backlog: u32,
    /// `socket.send.buffer.bytes`; `None`: the system's.
    pub send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None`: the system's.
    pub receive_buffer_bytes: Option<usize>,
}

/// A bound listener that does not accept yet: its port is taken, its address known.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    name: Arc<str>,
}

impl Listener {
    /// Binds the address. The error names the address and the property to change.
    pub async fn bind(options: &ListenerOptions) -> io::Result<Self> {
        let bind = if let Some(port) = options.bind.strip_prefix(':') {
            format!("0.0.0.0:{port}")
        } else {
            options.bind.clone()
        };
        let explain = |error: io::Error| {
            let why = match error.kind() {
                io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
                _ => error.to_string(),
            };
            let name = &options.name;
            io::Error::new(
                error.kind(),
                format!(
                    "cannot listen on {bind} for {name}: {why}; change {name} in the property 'listeners'"
                ),
            )
        };
        let address = tokio::net::lookup_host(&bind)
            .await
            .map_err(explain)?
            .next()
            .ok_or_else(|| explain(io::Error::other("the host has no address")))?;
        let socket = Self::socket(address, options).map_err(explain)?;
        Ok(Self { socket, name: options.name.as_str().into() })
    }

    fn socket(address: SocketAddr, options: &ListenerOptions) -> io::Result<TcpListener> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        // Buffer sizes are inherited by accepted sockets and must be set before `listen`.
        if let Some(bytes) = options.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = options.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        TcpListener::from_std(socket.into())
    }

    /// The address that is really bound (a port of 0 was replaced).
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until told to stop; every connection is a task of `tasks`.
    pub(crate) async fn accept(
        self,
        context: Arc<ConnectionContext>,
        limits: Arc<ConnectionLimits>,
        tasks: TaskTracker,
        stopping: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stopping.cancelled() => return,
            };
            match accepted {
                Ok((socket, peer)) => {
                    let pause = limits.pause(&self.name);
                    if !pause.is_zero() {
                        tokio::select! {
                            () = tokio::time::sleep(pause) => {}
                            () = stopping.cancelled() => return,
                        }
                    }
                    Self::admit(socket, peer, &context, &limits, &tasks, &stopping);
                }
                Err(error) => {
                    tracing::warn!(listener = %self.name, %error, "cannot accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(
        socket: TcpStream,
        peer: SocketAddr,
        context: &Arc<ConnectionContext>,
        limits: &Arc<ConnectionLimits>,
        tasks: &TaskTracker,
        stopping: &CancellationToken,
    ) {
        let admission = match limits.admit(peer.ip(), &context.listener) {
            Ok(admission) => admission,
            Err(refusal) => {
                tracing::info!(listener = %context.listener, %peer, %refusal, "connection refused");
                return;
            }
        };
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
        }
        let context = Arc::clone(context);
        let stopping = stopping.clone();
        tasks.spawn(async move {
            let listener = Arc::clone(&context.listener);
            let ending = serve(socket, peer, context, stopping).await;
            drop(admission);
            match ending {
                Ending::Refused(_) | Ending::Tls(_) | Ending::Frame(FrameError::TooLarge { .. }) => {
                    tracing::info!(%listener, %peer, reason = %ending, "connection closed by the node");
                }
                _ => tracing::debug!(%listener, %peer, reason = %ending, "connection ended"),
            }
        });
    }
}
