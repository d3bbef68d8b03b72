//! Who asks: HTTP Basic, checked against the users of PLAIN and SCRAM that the Kafka listeners of this node know; or the certificate
//! that the connection was opened with, where the HTTP port asks for one.
//!
//! Without either a caller is `User:ANONYMOUS`, as on the gRPC plane. It gets in where an authorizer judges it by its rules, or
//! where no Kafka listener of this node asks its clients who they are either: the console is no way around a listener.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::answer::ApiError;
use super::{Console, guard};
use crate::api::authorization::Access;
use crate::context::BrokerContext;
use crate::http::HttpCaller;
use crate::security::properties::ListenerProperties;
use crate::security::sasl::Mechanism;
use crate::security::sasl::plain::message;
use crate::security::{CredentialSnapshot, GrpcCaller, ListenerSecurity, Principal};

/// Logins that are checked at once: each is some milliseconds of work.
const CHECKS_MAX: usize = 2;
/// A login that does not get its turn within this time is told to come again.
const TURN_MAX: Duration = Duration::from_secs(5);
/// What a wrong login waits, whatever listeners say: whoever tries passwords is slowed down.
const FAILURE_DELAY_MIN: Duration = Duration::from_millis(100);
/// Bytes of an Authorization header.
const HEADER_BYTES_MAX: usize = 2_048;

/// Whoever sent a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) principal: Principal,
    pub(super) address: SocketAddr,
    /// It has shown who it is.
    pub(super) is_known: bool,
}

/// The limits of logins.
#[derive(Debug)]
pub(super) struct Logins {
    turns: Semaphore,
}

impl Default for Logins {
    fn default() -> Self {
        Self { turns: Semaphore::new(CHECKS_MAX) }
    }
}

impl Caller {
    /// A question to the admin plane, in this caller's name.
    pub(super) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let caller = GrpcCaller { address: self.address, principal: self.principal.clone() };
        request.extensions_mut().insert(caller);
        request
    }

    /// Its rights, by the rules of this moment.
    pub(super) fn access(&self, console: &Console) -> Access {
        let Some(options) = &console.admin.authorizer else { return Access::everything() };
        let host = self.address.ip().to_canonical().to_string();
        Access::new(options, console.admin.image.current(), self.principal.to_string(), host.into())
    }
}

impl Console {
    /// Whether there is anything to log in with.
    pub(super) fn offers_login(&self) -> bool {
        let offers = |listener: &Arc<ListenerSecurity>| {
            listener.sasl().is_some_and(|sasl| {
                sasl.mechanisms.iter().any(|(mechanism, _)| *mechanism != Mechanism::OauthBearer)
            })
        };
        self.broker.get().is_some_and(|context| context.security.listeners().iter().any(offers))
    }

    /// Whether somebody who does not say who they are gets in.
    pub(super) fn lets_anonymous_in(&self) -> bool {
        if self.admin.authorizer.is_some() {
            return true;
        }
        let Some(context) = self.broker.get() else {
            // Before the broker has started nothing of a listener is known; a node without one has only metadata to show.
            return !self.admin.properties.get("process.roles").is_none_or(|roles| roles.contains("broker"));
        };
        context.security.listeners().iter().all(|listener| !asks_who(context, listener))
    }

    /// Finds out who asks.
    pub(super) async fn caller(&self, headers: &HeaderMap, from: &HttpCaller) -> Result<Caller, ApiError> {
        let address = from.address;
        let Some(given) = headers.get(header::AUTHORIZATION) else {
            if let Some(principal) = from.principal.clone() {
                return Ok(Caller { principal, address, is_known: true });
            }
            if self.lets_anonymous_in() {
                return Ok(Caller { principal: Principal::anonymous(), address, is_known: false });
            }
            // Before the broker has started nobody can be known.
            self.context()?;
            return Err(ApiError::unauthenticated("sign in with a user of the Kafka listeners"));
        };
        let (user, password) = guard::printable(given)
            .filter(|text| text.len() <= HEADER_BYTES_MAX)
            .and_then(basic)
            .ok_or_else(|| ApiError::unauthenticated("the Authorization header is no HTTP Basic login"))?;
        let Some(context) = self.broker.get().cloned() else { return Err(ApiError::no_broker()) };
        let turn = tokio::time::timeout(TURN_MAX, self.logins.turns.acquire()).await;
        let Ok(Ok(turn)) = turn else { return Err(ApiError::busy("too many logins at once")) };
        let name = user.clone();
        let checked = tokio::task::spawn_blocking(move || is_right(&context, &user, &password)).await;
        drop(turn);
        if checked.unwrap_or(false) {
            return Ok(Caller { principal: Principal::user(name), address, is_known: true });
        }
        tracing::info!(target: "ottla::audit", user = name, %address, "a login to the console failed");
        tokio::time::sleep(FAILURE_DELAY_MIN).await;
        Err(ApiError::unauthenticated("user or password is wrong"))
    }
}

/// Whether a listener's clients have to show who they are.
fn asks_who(context: &BrokerContext, listener: &ListenerSecurity) -> bool {
    let view = ListenerProperties::new(Arc::clone(&context.options.properties), listener.name());
    listener.sasl().is_some() || (listener.tls().is_some() && view.get("ssl.client.auth") == "required")
}

/// `Basic base64(user:password)`.
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    (!user.is_empty() && !password.is_empty()).then(|| (user.to_owned(), password.to_owned()))
}

/// Whether a listener would take this user with this password.
fn is_right(context: &BrokerContext, user: &str, password: &str) -> bool {
    let snapshot = context.security.credentials.current();
    let mut is_right = false;
    let mut hashes = Vec::new();
    for sasl in context.security.listeners().iter().filter_map(|listener| listener.sasl()) {
        for (mechanism, _) in &sasl.mechanisms {
            match mechanism.scram() {
                Some(hash) if !hashes.contains(&hash) => {
                    hashes.push(hash);
                    is_right |= scram(&snapshot, hash, user, password);
                }
                None if *mechanism == Mechanism::Plain => {
                    is_right |= sasl.plain.authenticate(&message(user, password)).is_ok();
                }
                _ => {}
            }
        }
    }
    is_right
}

fn scram(
    snapshot: &CredentialSnapshot,
    hash: crate::security::sasl::scram::ScramMechanism,
    user: &str,
    password: &str,
) -> bool {
    let Some(known) = snapshot.user(user, hash) else { return false };
    let Some(iterations) = NonZeroU32::new(known.iterations) else { return false };
    let given = hash.credential(password.as_bytes(), known.salt.clone(), iterations);
    bool::from(given.stored_key.ct_eq(&known.stored_key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_basic_logins_with_user_and_password_are_read() {
        let header = |text: &str| basic(&format!("Basic {}", BASE64.encode(text)));
        assert_eq!(header("alice:se:cret"), Some(("alice".to_owned(), "se:cret".to_owned())));
        for wrong in ["alice", ":x", "alice:", ""] {
            assert_eq!(header(wrong), None, "{wrong}");
        }
        for wrong in ["", "Basic", "Basic !!!", "Bearer YTpi", "Basic /w=="] {
            assert_eq!(basic(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_scram_password_is_checked_by_its_stored_key() {
        use crate::security::sasl::scram::ScramMechanism::{Sha256, Sha512};
        let iterations = NonZeroU32::new(4096).unwrap();
        let known = Sha512.credential(b"secret", bytes::Bytes::from_static(b"salt"), iterations);
        let users = std::collections::HashMap::from([(("alice".to_owned(), Sha512), known)]);
        let snapshot = CredentialSnapshot { scram: Arc::new(users), ..Default::default() };
        assert!(scram(&snapshot, Sha512, "alice", "secret"));
        assert!(!scram(&snapshot, Sha512, "alice", "Secret"));
        assert!(!scram(&snapshot, Sha256, "alice", "secret"));
        assert!(!scram(&snapshot, Sha512, "bob", "secret"));
    }
}
