//! What a handler gets beside the request's body, and what it gives back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ottla_wire::api::ApiKey;
use ottla_wire::encode::{ErrorCounts, Segments, encode_counted_frame};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::Message;
use ottla_wire::text::Text;
use tracing::{Instrument, Span};

use crate::network::FileRange;
use crate::security::Principal;

/// An encoded answer, its length in front; record bytes may be ranges of files.
#[derive(Debug, Default)]
pub(crate) struct Response {
    pub(crate) segments: Segments,
    /// What `Segment::External` tokens stand for, by index.
    pub(crate) files: Vec<FileRange>,
    /// A quota says: nothing more is read of this client for so long after the answer, in milliseconds (KIP-219).
    pub(crate) mute_ms: u32,
    /// The error codes in it, for the metrics.
    pub(crate) errors: ErrorCounts,
}

impl Response {
    /// The answer of a client that is to be quiet for a while.
    pub(crate) fn muted(self, throttle_time_ms: i32) -> Self {
        Self { mute_ms: u32::try_from(throttle_time_ms).unwrap_or(0).max(self.mute_ms), ..self }
    }
}

/// What a handler does with a request.
pub(crate) enum Answer {
    /// The answer is here.
    Ready(Response),
    /// The answer comes later; the connection goes on meanwhile.
    Waiting(Pin<Box<dyn Future<Output = Response> + Send>>),
    /// The answer comes later, and nothing behind this request is dispatched before.
    Exclusive(Pin<Box<dyn Future<Output = Response> + Send>>),
    /// There is no answer (Produce with acks=0).
    None,
    /// The connection is closed; the text says why.
    Close(String),
}

impl Answer {
    /// The answer, awaited within a span that ends with it.
    pub(crate) fn within(self, span: Span) -> Self {
        if span.is_disabled() {
            return self;
        }
        let told = |span: &Span, response: &Response| {
            if !response.errors.is_empty() {
                let names: Vec<_> =
                    response.errors.iter().map(|(code, _)| ErrorCode::from_code(*code).name()).collect();
                span.record("errors", names.join(",")).record("otel.status_code", "ERROR");
            }
        };
        let awaited = |answer: Pin<Box<dyn Future<Output = Response> + Send>>| {
            let future = async move {
                let response = answer.await;
                told(&Span::current(), &response);
                response
            };
            Box::pin(future.instrument(span.clone()))
        };
        match self {
            Self::Waiting(answer) => Self::Waiting(awaited(answer)),
            Self::Exclusive(answer) => Self::Exclusive(awaited(answer)),
            Self::Ready(response) => {
                told(&span, &response);
                Self::Ready(response)
            }
            other => other,
        }
    }

    /// The answer of a client that is to be quiet for a while; where there is none, only the quiet.
    pub(crate) fn muted(self, throttle_time_ms: i32) -> Self {
        if throttle_time_ms <= 0 {
            return self;
        }
        match self {
            Self::Ready(response) => Self::Ready(response.muted(throttle_time_ms)),
            Self::Waiting(answer) => {
                Self::Waiting(Box::pin(async move { answer.await.muted(throttle_time_ms) }))
            }
            Self::Exclusive(answer) => {
                Self::Exclusive(Box::pin(async move { answer.await.muted(throttle_time_ms) }))
            }
            Self::None => Self::Ready(Response::default().muted(throttle_time_ms)),
            Self::Close(reason) => Self::Close(reason),
        }
    }
}

/// One request, without its body.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) api_key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: Option<Text>,
    /// Header and body, without the length in front.
    pub(crate) request_bytes: usize,
    /// Who the client is.
    pub(crate) principal: Arc<Principal>,
    /// Address of the client, without the port.
    pub(crate) client_host: Arc<str>,
    /// Name of the listener that it came in by.
    pub(crate) listener: Arc<str>,
}

impl Call {
    /// What the client calls itself, for quotas and logs.
    pub(crate) fn client_name(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }

    /// Encodes an answer that holds no file ranges.
    pub(crate) fn respond(&self, body: &impl Message) -> Response {
        self.respond_with_files(body, Vec::new())
    }

    /// Encodes an answer whose external records are `files`, by token.
    pub(crate) fn respond_with_files(&self, body: &impl Message, files: Vec<FileRange>) -> Response {
        match encode_counted_frame(self.api_key, self.version, self.correlation_id, body) {
            Ok((segments, errors)) => Response { segments, files, mute_ms: 0, errors },
            Err(error) => {
                // Only an answer that does not fit the protocol's integers gets here.
                tracing::error!(api = ?self.api_key, version = self.version, %error, "an answer could not be encoded");
                Response::default()
            }
        }
    }

    /// An answer that is here.
    pub(crate) fn ready(&self, body: &impl Message) -> Answer {
        Answer::Ready(self.respond(body))
    }

    /// An answer that comes later and that later requests of the connection may build on.
    pub(crate) fn exclusive<Body: Message>(
        self,
        body: impl Future<Output = Body> + Send + 'static,
    ) -> Answer {
        Answer::Exclusive(Box::pin(async move {
            let body = body.await;
            self.respond(&body)
        }))
    }

    /// An answer that comes later; the connection goes on meanwhile.
    pub(crate) fn waiting<Body: Message>(self, body: impl Future<Output = Body> + Send + 'static) -> Answer {
        Answer::Waiting(Box::pin(async move {
            let body = body.await;
            self.respond(&body)
        }))
    }
}
