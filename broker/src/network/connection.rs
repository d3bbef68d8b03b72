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

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::authentication::{Admitted, Authentication};
use super::frame_reader::{FrameError, FrameReader};
use super::request_clock::RequestClock;
use super::stream::{Stream, WriteSide};
use super::writer::Outbox;
use crate::api::{Answer, Client, Response};
use crate::metrics::RequestTimes;
use crate::security::{ListenerSecurity, Principal, tls};

/// Requests of one connection that may be waiting at once; beyond that its socket is not read.
const IN_FLIGHT_REQUESTS_MAX: usize = 128;
/// Answer bytes that one connection may have unwritten before its socket is no longer read.
const UNWRITTEN_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A TLS handshake that takes longer is given up.
const TLS_HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// How long a connection that is about to be closed waits for its client to take the last answer.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

type Waiting = Pin<Box<dyn Future<Output = Response> + Send>>;

/// What answers requests of clients that are known: the dispatcher, or a test.
pub(crate) type Handler = Arc<dyn Fn(&mut Client, Bytes) -> Answer + Send + Sync>;

/// What the connections of one listener share.
pub(crate) struct ConnectionContext {
    pub(crate) handler: Handler,
    /// Where times of requests are counted; `None`: nowhere.
    pub(crate) times: Option<RequestTimes>,
    /// Name of the listener, upper case.
    pub(crate) listener: Arc<str>,
    /// TLS and SASL.
    pub(crate) security: Arc<ListenerSecurity>,
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
    #[error("no TLS handshake: {0}")]
    Tls(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    context: Arc<ConnectionContext>,
    stopping: CancellationToken,
) -> Ending {
    let opened = tokio::select! {
        opened = open(socket, &context) => opened,
        () = stopping.cancelled() => return Ending::Stopping,
    };
    let (mut stream, principal) = match opened {
        Ok(opened) => opened,
        Err(ending) => return ending,
    };
    let mut client = Client::new(peer, Arc::clone(&context.listener));
    client.principal = Arc::new(principal);
    let authentication = Authentication::new(&context.security, peer.ip());
    let frame_bytes_max = authentication.frame_bytes_max().unwrap_or(context.frame_bytes_max);
    let mut connection = Connection {
        reader: FrameReader::new(frame_bytes_max),
        waiting: FuturesOrdered::new(),
        outbox: Outbox::default(),
        exclusive: false,
        authentication,
        refusal: None,
        muted_until: None,
        clock: RequestClock::new(context.times.clone()),
        context,
        client,
    };
    let ending = match connection.run(&mut stream, &stopping).await {
        Ok(never) => match never {},
        Err(ending) => ending,
    };
    if let Stream::Tls(stream) = &mut stream {
        // A word of farewell, so that the client can tell an end from a cut. Whether it comes through does not matter.
        drop(timeout(FAREWELL_MAX, stream.shutdown()).await);
    }
    ending
}

/// Encrypts the connection where the listener does; says who the client is as far as that tells.
async fn open(socket: TcpStream, context: &ConnectionContext) -> Result<(Stream, Principal), Ending> {
    let security = &context.security;
    let Some(config) = security.tls() else {
        return Ok((Stream::Plain(socket), Principal::anonymous()));
    };
    let accepted = timeout(TLS_HANDSHAKE_MAX, TlsAcceptor::from(config).accept(socket)).await;
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(no_handshake(security, error.to_string())),
        Err(_) => {
            return Err(no_handshake(security, format!("not within {} s", TLS_HANDSHAKE_MAX.as_secs())));
        }
    };
    let subject = tls::subject(stream.get_ref().1.peer_certificates());
    let principal = security.principal(subject.as_deref()).ok_or_else(|| {
        Ending::Refused("no rule of ssl.principal.mapping.rules names the client's certificate".to_owned())
    })?;
    Ok((Stream::Tls(Box::new(stream)), principal))
}

fn no_handshake(security: &ListenerSecurity, reason: String) -> Ending {
    security.count_failure();
    Ending::Tls(reason)
}

struct Connection {
    reader: FrameReader,
    /// Answers that are not there yet, in the order of their requests.
    waiting: FuturesOrdered<Waiting>,
    outbox: Outbox,
    /// The youngest waiting request must end before another is dispatched.
    exclusive: bool,
    authentication: Authentication,
    /// The client failed to authenticate: it is told so later, and that is the end.
    refusal: Option<Refusal>,
    /// A quota was passed: nothing is read before.
    muted_until: Option<Instant>,
    clock: RequestClock,
    context: Arc<ConnectionContext>,
    client: Client,
}

/// A failed authentication. The pause before it is told slows down whoever tries passwords (KIP-306).
struct Refusal {
    due: Instant,
    response: Option<Response>,
    reason: String,
}

enum Never {}

impl Connection {
    async fn run(&mut self, stream: &mut Stream, stopping: &CancellationToken) -> Result<Never, Ending> {
        let (mut read_side, mut write_side) = stream.split();
        let idle_max = self.context.idle_max.unwrap_or(Duration::from_secs(86_400 * 365));
        let idle = tokio::time::sleep(idle_max);
        tokio::pin!(idle);
        let mut active_at = Instant::now();
        loop {
            self.dispatch_arrived()?;
            let drained = self.outbox.is_empty() || self.outbox.write(&mut write_side).await?;
            self.clock.written(self.outbox.bytes());
            let may_read = self.may_dispatch();
            let alarm = self.refusal.as_ref().map(|refusal| refusal.due).or(self.muted_until);
            tokio::select! {
                biased;
                Some(response) = self.waiting.next(), if !self.waiting.is_empty() => {
                    active_at = Instant::now();
                    self.push(response, Some(active_at));
                    self.take_ready(active_at).await;
                }
                ready = self.outbox.wait(&mut write_side), if !drained => ready?,
                more = self.reader.fill(&mut read_side), if may_read => {
                    if !more? {
                        return Err(Ending::ByClient);
                    }
                    // One clock read a burst; an incomplete frame does not count as activity, or one byte now and
                    // then would keep a connection for ever.
                    let read_at = Instant::now();
                    self.clock.read(read_at);
                    if self.dispatch_arrived()? {
                        active_at = read_at;
                    }
                }
                () = sleep_until(alarm), if alarm.is_some() => {
                    if let Some(refusal) = self.refusal.take() {
                        return Err(self.refuse(refusal, &mut write_side).await);
                    }
                    self.muted_until = None;
                    active_at = Instant::now();
                }
                () = &mut idle => {
                    let deadline = active_at + idle_max;
                    let is_quiet = self.waiting.is_empty() && self.outbox.is_empty() && alarm.is_none();
                    if deadline <= Instant::now() && is_quiet {
                        return Err(Ending::Idle);
                    }
                    idle.as_mut().reset(deadline.max(Instant::now() + Duration::from_millis(100)));
                }
                () = stopping.cancelled() => return Err(Ending::Stopping),
            }
        }
    }

    /// Queues an answer that is there since `now` (`None`: at once); a quota may have it that nothing is read for a while.
    fn push(&mut self, response: Response, now: Option<Instant>) {
        self.clock.answered(now, &response);
        if response.mute_ms > 0 {
            let until = Instant::now() + Duration::from_millis(response.mute_ms.into());
            self.muted_until = self.muted_until.max(Some(until));
        }
        self.outbox.push(response);
        self.clock.queued(self.outbox.bytes());
    }

    async fn refuse(&mut self, refusal: Refusal, write_side: &mut WriteSide<'_>) -> Ending {
        if let Some(response) = refusal.response {
            self.outbox.push(response);
            // A client that does not take it has lost nothing.
            drop(timeout(FAREWELL_MAX, self.outbox.write_all(write_side)).await);
        }
        Ending::Refused(refusal.reason)
    }

    /// What a frame leads to: as long as the client is not known, an authentication.
    fn dispatch(&mut self, frame: Bytes) -> Answer {
        match self.authentication.admit(frame) {
            Admitted::Request(frame) => (self.context.handler)(&mut self.client, frame),
            Admitted::Answer(response) => Answer::Ready(response),
            Admitted::Known(response, principal) => {
                self.client.principal = Arc::new(principal);
                self.reader.set_frame_bytes_max(self.context.frame_bytes_max);
                Answer::Ready(response)
            }
            Admitted::Refused { response, reason, delay } => {
                self.refusal = Some(Refusal { due: Instant::now() + delay, response, reason });
                Answer::None
            }
            Admitted::Expired => {
                Answer::Close("the session has ended without a new authentication".to_owned())
            }
        }
    }

    fn may_dispatch(&self) -> bool {
        !self.exclusive
            && self.refusal.is_none()
            && self.muted_until.is_none()
            && self.waiting.len() < IN_FLIGHT_REQUESTS_MAX
            && self.outbox.bytes() < UNWRITTEN_BYTES_MAX
    }

    /// Dispatches every whole frame that has arrived, as far as limits allow; says whether there was one.
    fn dispatch_arrived(&mut self) -> Result<bool, Ending> {
        let mut any = false;
        while self.may_dispatch() {
            let Some(frame) = self.reader.next()? else { break };
            any = true;
            let length = frame.len();
            let answer = self.dispatch(frame);
            self.clock.dispatched(
                self.client.handled.take(),
                length,
                !matches!(answer, Answer::None | Answer::Close(_)),
            );
            match answer {
                Answer::Ready(response) if self.waiting.is_empty() => self.push(response, None),
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
    async fn take_ready(&mut self, now: Instant) {
        while !self.waiting.is_empty() {
            let ready = std::future::poll_fn(|task| match self.waiting.poll_next_unpin(task) {
                std::task::Poll::Ready(response) => std::task::Poll::Ready(response),
                std::task::Poll::Pending => std::task::Poll::Ready(None),
            })
            .await;
            let Some(response) = ready else { return };
            self.push(response, Some(now));
        }
        self.exclusive = false;
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
