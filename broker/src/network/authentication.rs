//! Whether a connection's client is known: what stands between its frames and the handlers on a listener with SASL.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_wire::api::ApiKey;
use tokio::time::Instant;

use crate::api::Response;
use crate::replica::Clock;
use crate::security::sasl::server::{Authenticator, Session, Step};
use crate::security::{ListenerSecurity, Principal};

/// A client may not authenticate anew more often than this (KIP-368): its handshake is then a request like others.
const AGAIN_PERIOD_MIN: Duration = Duration::from_secs(1);

/// The state of one connection.
pub(crate) struct Authentication {
    security: Arc<ListenerSecurity>,
    address: IpAddr,
    /// Under way.
    authenticator: Option<Box<Authenticator>>,
    /// Done before, on a listener with SASL.
    session: Option<Session>,
    began: Instant,
}

/// What a frame is.
pub(crate) enum Admitted {
    /// A request of a client that may ask.
    Request(Bytes),
    /// Part of an authentication, with its answer.
    Answer(Response),
    /// The end of an authentication.
    Known(Response, Principal),
    /// The client is not who it says, or does not keep the order; after `delay` it gets its answer and is closed.
    Refused { response: Option<Response>, reason: String, delay: Duration },
    /// The session is over.
    Expired,
}

impl Authentication {
    /// The state of a new connection.
    pub(crate) fn new(security: &Arc<ListenerSecurity>, address: IpAddr) -> Self {
        let authenticator = security
            .sasl()
            .map(|settings| Box::new(Authenticator::new(settings, security.credentials.clone())));
        Self { security: Arc::clone(security), address, authenticator, session: None, began: Instant::now() }
    }

    /// The longest frame while the client is not known; `None`: it need not be.
    pub(crate) fn frame_bytes_max(&self) -> Option<usize> {
        self.authenticator.as_ref()?;
        self.security.sasl().map(|settings| settings.receive_bytes_max)
    }

    /// Takes a frame.
    pub(crate) fn admit(&mut self, frame: Bytes) -> Admitted {
        let Some(authenticator) = &mut self.authenticator else {
            // The usual case: without SASL this costs nothing.
            return match &self.session {
                None => Admitted::Request(frame),
                Some(_) => self.admit_known(frame),
            };
        };
        match authenticator.step(frame, Clock::wall_ms()) {
            Step::PassOn(frame) => Admitted::Request(frame),
            Step::Reply(response) => Admitted::Answer(response),
            Step::Done(response, session) => {
                self.authenticator = None;
                let principal = session.principal.clone();
                self.session = Some(session);
                Admitted::Known(response, principal)
            }
            Step::Refused(response, reason) => {
                let (listener, address) = (self.security.name(), self.address);
                tracing::info!(target: "ottla::audit", listener, %address, reason, "authentication failed");
                let delay = self.security.failed(self.address);
                Admitted::Refused { response, reason, delay }
            }
        }
    }

    /// A frame of a client with a session: it may begin anew, and has to when the session is over.
    fn admit_known(&mut self, frame: Bytes) -> Admitted {
        let Some(session) = &self.session else { return Admitted::Request(frame) };
        let is_handshake = frame.starts_with(&ApiKey::SaslHandshake.code().to_be_bytes());
        if is_handshake
            && self.began.elapsed() >= AGAIN_PERIOD_MIN
            && let Some(settings) = self.security.sasl()
        {
            self.began = Instant::now();
            let again = Authenticator::again(settings, self.security.credentials.clone(), session.clone());
            self.authenticator = Some(Box::new(again));
            return self.admit(frame);
        }
        if session.ends_at_ms.is_some_and(|ends_at_ms| ends_at_ms <= Clock::wall_ms()) {
            return Admitted::Expired;
        }
        Admitted::Request(frame)
    }
}
