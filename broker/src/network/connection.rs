//! One client connection: requests in, in order; answers out, in the same order.
//!
//! Requests overlap: one that waits (a produce for its replicas, a fetch for records) does not hold up the reading of
//! the next. What a request does to a partition happens when it is dispatched, so the order per partition is the order
//! on the wire. A request whose effect takes time and that later ones may build on is `Exclusive`: nothing behind it is
//! dispatched before it has ended.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::frame_reader::{FrameError, FrameReader};
use super::writer::Outbox;
use crate::api::{Answer, Client, Dispatcher, Response};

/// Requests of one connection that may be waiting at once; beyond that its socket is not read.
const IN_FLIGHT_REQUESTS_MAX: usize = 128;
/// Answer bytes that one connection may have unwritten before its socket is no longer read.
const UNWRITTEN_BYTES_MAX: u64 = 64 * 1024 * 1024;

type Waiting = Pin<Box<dyn Future<Output = Response> + Send>>;

/// What the connections of one listener share.
pub(crate) struct ConnectionContext {
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// Name of the listener, upper case.
    pub(crate) listener: Arc<str>,
    /// `socket.request.max.bytes`.
    pub(crate) frame_bytes_max: usize,
    /// `connections.max.idle.ms`; `None`: for ever.
    pub(crate) idle_max: Option<Duration>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ending {
    #[error("closed by the client")]
    ByClient,
    #[error("idle for longer than connections.max.idle.ms")]
    Idle,
    #[error("the node is stopping")]
    Stopping,
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    mut socket: TcpStream,
    peer: SocketAddr,
    context: Arc<ConnectionContext>,
    stopping: CancellationToken,
) -> Ending {
    let client = Client::new(peer, Arc::clone(&context.listener));
    let mut connection = Connection {
        reader: FrameReader::new(context.frame_bytes_max),
        waiting: FuturesOrdered::new(),
        outbox: Outbox::default(),
        exclusive: false,
        context,
        client,
    };
    match connection.run(&mut socket, &stopping).await {
        Ok(never) => match never {},
        Err(ending) => ending,
    }
}

struct Connection {
    reader: FrameReader,
    /// Answers that are not there yet, in the order of their requests.
    waiting: FuturesOrdered<Waiting>,
    outbox: Outbox,
    /// The youngest waiting request must end before another is dispatched.
    exclusive: bool,
    context: Arc<ConnectionContext>,
    client: Client,
}

enum Never {}

impl Connection {
    async fn run(&mut self, socket: &mut TcpStream, stopping: &CancellationToken) -> Result<Never, Ending> {
        let (mut read_half, write_half) = socket.split();
        let idle_max = self.context.idle_max.unwrap_or(Duration::from_secs(86_400 * 365));
        let idle = tokio::time::sleep(idle_max);
        tokio::pin!(idle);
        let mut active_at = Instant::now();
        loop {
            self.dispatch_arrived()?;
            let drained = self.outbox.is_empty() || self.outbox.write(write_half.as_ref()).await?;
            let may_read = self.may_dispatch();
            tokio::select! {
                biased;
                Some(response) = self.waiting.next(), if !self.waiting.is_empty() => {
                    self.outbox.push(response);
                    self.take_ready().await;
                    active_at = Instant::now();
                }
                ready = write_half.writable(), if !drained => ready?,
                more = self.reader.fill(&mut read_half), if may_read => {
                    if !more? {
                        return Err(Ending::ByClient);
                    }
                    // One clock read a burst; an incomplete frame does not count as activity, or one byte now and
                    // then would keep a connection for ever.
                    self.dispatch_arrived_and(&mut active_at)?;
                }
                () = &mut idle => {
                    let deadline = active_at + idle_max;
                    if deadline <= Instant::now() && self.waiting.is_empty() && self.outbox.is_empty() {
                        return Err(Ending::Idle);
                    }
                    idle.as_mut().reset(deadline.max(Instant::now() + Duration::from_millis(100)));
                }
                () = stopping.cancelled() => return Err(Ending::Stopping),
            }
        }
    }

    fn may_dispatch(&self) -> bool {
        !self.exclusive
            && self.waiting.len() < IN_FLIGHT_REQUESTS_MAX
            && self.outbox.bytes() < UNWRITTEN_BYTES_MAX
    }

    fn dispatch_arrived_and(&mut self, active_at: &mut Instant) -> Result<(), Ending> {
        if self.dispatch_arrived()? {
            *active_at = Instant::now();
        }
        Ok(())
    }

    /// Dispatches every whole frame that has arrived, as far as limits allow; says whether there was one.
    fn dispatch_arrived(&mut self) -> Result<bool, Ending> {
        let mut any = false;
        while self.may_dispatch() {
            let Some(frame) = self.reader.next()? else { break };
            any = true;
            match self.context.dispatcher.dispatch(&mut self.client, frame) {
                Answer::Ready(response) if self.waiting.is_empty() => self.outbox.push(response),
                Answer::Ready(response) => self.waiting.push_back(Box::pin(std::future::ready(response))),
                Answer::Waiting(future) => self.waiting.push_back(future),
                Answer::Exclusive(future) => {
                    self.exclusive = true;
                    self.waiting.push_back(future);
                }
                Answer::None => {}
                Answer::Close(reason) => return Err(Ending::Refused(reason)),
            }
        }
        Ok(any)
    }

    /// Moves every further answer that is ready to the outbox, so that one write takes them all.
    async fn take_ready(&mut self) {
        while !self.waiting.is_empty() {
            let ready = std::future::poll_fn(|task| match self.waiting.poll_next_unpin(task) {
                std::task::Poll::Ready(response) => std::task::Poll::Ready(response),
                std::task::Poll::Pending => std::task::Poll::Ready(None),
            })
            .await;
            let Some(response) = ready else { return };
            self.outbox.push(response);
        }
        self.exclusive = false;
    }
}
