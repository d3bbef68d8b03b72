//! The order of an authentication on a connection: versions, handshake, tokens, done; and again when a session ends.
//!
//! Before a client is known it may ask for ApiVersions once and for SaslHandshake; anything else closes the connection
//! (KIP-43, KIP-152). A handshake of version 0 is followed by tokens without a request around them.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ottla_wire::api::ApiKey;
use ottla_wire::decode::Decoder;
use ottla_wire::encode::{Encoder, encode_response_frame};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::header::RequestHeader;
use ottla_wire::messages::{
    Message, MetadataResponse, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use ottla_wire::text::Text;
use ring::rand::{SecureRandom, SystemRandom};

use super::oauthbearer::{self, ABORT};
use super::scram::{ClientFirst, ScramMechanism, ServerExchange};
use super::{AuthenticationError, Identity, Mechanism, SaslSettings};
use crate::api::Response;
use crate::security::credentials::Credentials;
use crate::security::principal::Principal;

/// Random bytes of a server's nonce.
const NONCE_BYTES: usize = 24;

/// What a connection does with a message of an authentication.
pub(crate) enum Step {
    /// An ApiVersions request: it is answered as ever.
    PassOn(Bytes),
    /// More messages follow.
    Reply(Response),
    /// The client is known.
    Done(Response, Session),
    /// After a pause the answer goes out, if there is one, and the connection is closed.
    Refused(Option<Response>, String),
}

/// A client that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) principal: Principal,
    pub(crate) mechanism: Mechanism,
    /// Milliseconds since 1970 after which the next request closes the connection; `None`: never.
    pub(crate) ends_at_ms: Option<i64>,
}

enum State {
    /// Nothing has come.
    Start,
    /// ApiVersions was answered; only a handshake may follow.
    Versions,
    /// Tokens, inside requests or bare.
    Exchange { mechanism: Mechanism, exchange: Exchange, in_requests: bool },
    /// Done or refused.
    Over,
}

enum Exchange {
    Plain,
    ScramFirst(ScramMechanism),
    ScramProof(Box<ServerExchange>, Identity),
    Token,
    /// The client has been told that its token is no good, and acknowledges it.
    TokenRefused(String),
}

/// What one token leads to.
enum Progress {
    Challenge(Exchange, Bytes),
    Done(Bytes, Identity),
}

/// One authentication of one connection.
pub(crate) struct Authenticator {
    settings: Arc<SaslSettings>,
    credentials: Credentials,
    state: State,
    /// Who the client was, if it authenticates anew.
    before: Option<Session>,
}

impl Authenticator {
    /// The first of a connection.
    pub(crate) fn new(settings: Arc<SaslSettings>, credentials: Credentials) -> Self {
        Self { settings, credentials, state: State::Start, before: None }
    }

    /// Another on the same connection (KIP-368): it must end with the same principal.
    pub(crate) fn again(settings: Arc<SaslSettings>, credentials: Credentials, before: Session) -> Self {
        Self { before: Some(before), ..Self::new(settings, credentials) }
    }

    /// Takes the next frame, without its length.
    pub(crate) fn step(&mut self, frame: Bytes, now_ms: i64) -> Step {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Start => self.request(frame, true),
            State::Versions => self.request(frame, false),
            State::Exchange { mechanism, exchange, in_requests: true } => {
                self.token_request(frame, mechanism, exchange, now_ms)
            }
            State::Exchange { mechanism, exchange, in_requests: false } => {
                self.bare_token(&frame, mechanism, exchange, now_ms)
            }
            State::Over => closed("a message behind the end of an authentication"),
        }
    }

    /// A request before the exchange of tokens.
    fn request(&mut self, frame: Bytes, may_ask_versions: bool) -> Step {
        let mut decoder = Decoder::new(frame.clone());
        let Ok(header) = RequestHeader::decode(&mut decoder) else { return closed("not a request header") };
        match ApiKey::from_code(header.api_key) {
            Some(ApiKey::ApiVersions) if may_ask_versions => {
                let known = ApiKey::ApiVersions.versions().contains(&header.api_version);
                self.state = if known { State::Versions } else { State::Start };
                Step::PassOn(frame)
            }
            Some(ApiKey::SaslHandshake) if ApiKey::SaslHandshake.versions().contains(&header.api_version) => {
                match SaslHandshakeRequest::decode(&mut decoder, header.api_version) {
                    Ok(request) => self.handshake(&header, &request.mechanism),
                    Err(error) => closed(&format!("a malformed SaslHandshake: {error}")),
                }
            }
            Some(other) => closed(&format!("{other:?} before the client has authenticated")),
            None => closed(&format!("API key {} before the client has authenticated", header.api_key)),
        }
    }

    fn handshake(&mut self, header: &RequestHeader, name: &str) -> Step {
        let offered =
            Mechanism::from_name(name).filter(|mechanism| self.settings.reauth_ms(*mechanism).is_some());
        let mut response = SaslHandshakeResponse {
            error_code: ErrorCode::None.code(),
            mechanisms: self.settings.mechanism_names().map(Text::from_static).collect(),
        };
        let same =
            |mechanism: &Mechanism| self.before.as_ref().is_none_or(|before| before.mechanism == *mechanism);
        let Some(mechanism) = offered.filter(same) else {
            response.error_code = ErrorCode::UnsupportedSaslMechanism.code();
            let shown: String = name.chars().take(40).collect();
            let reason = format!("the SASL mechanism {shown:?} is not offered");
            return Step::Refused(encoded(ApiKey::SaslHandshake, header, &response), reason);
        };
        let exchange = match mechanism {
            Mechanism::Plain => Exchange::Plain,
            Mechanism::ScramSha256 => Exchange::ScramFirst(ScramMechanism::Sha256),
            Mechanism::ScramSha512 => Exchange::ScramFirst(ScramMechanism::Sha512),
            Mechanism::OauthBearer => Exchange::Token,
        };
        self.state = State::Exchange { mechanism, exchange, in_requests: header.api_version >= 1 };
        reply(encoded(ApiKey::SaslHandshake, header, &response))
    }

    fn token_request(&mut self, frame: Bytes, mechanism: Mechanism, exchange: Exchange, now_ms: i64) -> Step {
        const KEY: ApiKey = ApiKey::SaslAuthenticate;
        let mut decoder = Decoder::new(frame);
        let Ok(header) = RequestHeader::decode(&mut decoder) else { return closed("not a request header") };
        if header.api_key != KEY.code() {
            return out_of_place(&header);
        }
        if !KEY.versions().contains(&header.api_version) {
            return closed("an unknown version of SaslAuthenticate");
        }
        let request = match SaslAuthenticateRequest::decode(&mut decoder, header.api_version) {
            Ok(request) => request,
            Err(error) => return closed(&format!("a malformed SaslAuthenticate: {error}")),
        };
        match self.evaluate(&request.auth_bytes, mechanism, exchange, now_ms) {
            Ok(Progress::Challenge(exchange, auth_bytes)) => {
                self.state = State::Exchange { mechanism, exchange, in_requests: true };
                let response = SaslAuthenticateResponse { auth_bytes, ..Default::default() };
                reply(encoded(KEY, &header, &response))
            }
            Ok(Progress::Done(auth_bytes, identity)) => {
                let (session, session_lifetime_ms) = self.session(mechanism, identity, now_ms);
                let response =
                    SaslAuthenticateResponse { auth_bytes, session_lifetime_ms, ..Default::default() };
                done(encoded(KEY, &header, &response), session)
            }
            Err(error) => {
                let response = SaslAuthenticateResponse {
                    error_code: ErrorCode::SaslAuthenticationFailed.code(),
                    error_message: Some(Text::from(error.to_string().as_str())),
                    ..Default::default()
                };
                Step::Refused(encoded(KEY, &header, &response), error.to_string())
            }
        }
    }

    fn bare_token(&mut self, token: &Bytes, mechanism: Mechanism, exchange: Exchange, now_ms: i64) -> Step {
        match self.evaluate(token, mechanism, exchange, now_ms) {
            Ok(Progress::Challenge(exchange, token)) => {
                self.state = State::Exchange { mechanism, exchange, in_requests: false };
                reply(framed(&token))
            }
            Ok(Progress::Done(token, identity)) => {
                let (session, _) = self.session(mechanism, identity, now_ms);
                done(framed(&token), session)
            }
            // There is no form for an error.
            Err(error) => closed(&error.to_string()),
        }
    }

    /// When the session ends (KIP-368), and what the client is told of it in milliseconds.
    fn session(&self, mechanism: Mechanism, identity: Identity, now_ms: i64) -> (Session, i64) {
        let by_setting = self.settings.reauth_ms(mechanism).filter(|reauth_ms| *reauth_ms > 0);
        let by_token =
            identity.expires_at_ms.map(|expires_at_ms| expires_at_ms.saturating_sub(now_ms).max(0));
        let lifetime_ms = match (by_setting, by_token) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let ends_at_ms = lifetime_ms.map(|lifetime_ms| now_ms.saturating_add(lifetime_ms));
        let session = Session { principal: identity.principal, mechanism, ends_at_ms };
        (session, lifetime_ms.unwrap_or(0))
    }

    fn evaluate(
        &self,
        token: &[u8],
        mechanism: Mechanism,
        exchange: Exchange,
        now_ms: i64,
    ) -> Result<Progress, AuthenticationError> {
        let (token, identity) = match exchange {
            Exchange::Plain => (Bytes::new(), self.settings.plain.authenticate(token)?),
            Exchange::ScramFirst(scram) => return self.scram_first(token, scram, now_ms),
            Exchange::ScramProof(exchange, identity) => (exchange.finish(token)?, identity),
            Exchange::Token => match self.check_token(token, now_ms) {
                Ok(identity) => (Bytes::new(), identity),
                Err(TokenError::Message(error)) => return Err(error),
                Err(TokenError::Token(reason)) => {
                    let told = Bytes::from_static(oauthbearer::error_message());
                    return Ok(Progress::Challenge(Exchange::TokenRefused(reason), told));
                }
            },
            Exchange::TokenRefused(reason) => {
                tracing::debug!(%reason, acknowledged = token == ABORT, "a token was refused");
                return Err(AuthenticationError::credentials(mechanism));
            }
        };
        match &self.before {
            Some(before) if before.principal != identity.principal => Err(AuthenticationError::new(format!(
                "Cannot change principals during re-authentication from {} to {}",
                before.principal, identity.principal
            ))),
            _ => Ok(Progress::Done(token, identity)),
        }
    }

    fn scram_first(
        &self,
        message: &[u8],
        scram: ScramMechanism,
        now_ms: i64,
    ) -> Result<Progress, AuthenticationError> {
        let first = ClientFirst::parse(message)?;
        let credentials = self.credentials.current();
        let found = if first.token_auth {
            credentials.token(&first.user, scram, now_ms).map(|(credential, principal, expires_at_ms)| {
                (credential, Identity { principal, expires_at_ms: Some(expires_at_ms) })
            })
        } else {
            credentials.user(&first.user, scram).map(|credential| {
                let principal = Principal::user(first.user.as_str());
                (credential, Identity { principal, expires_at_ms: None })
            })
        };
        let (credential, identity) = found.ok_or_else(|| AuthenticationError::credentials(scram.into()))?;
        let mut nonce = [0; NONCE_BYTES];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| AuthenticationError::new("Authentication failed: no randomness"))?;
        let exchange = ServerExchange::start(scram, first, credential, &BASE64.encode(nonce));
        let challenge = exchange.challenge();
        Ok(Progress::Challenge(Exchange::ScramProof(Box::new(exchange), identity), challenge))
    }

    fn check_token(&self, message: &[u8], now_ms: i64) -> Result<Identity, TokenError> {
        let (token, authorization) = oauthbearer::parse_message(message).map_err(TokenError::Message)?;
        let validator = self.settings.tokens.as_ref();
        let identity = validator
            .ok_or_else(|| "OAUTHBEARER is not offered".to_owned())
            .and_then(|validator| validator.validate(token, now_ms))
            .map_err(TokenError::Token)?;
        if !authorization.is_empty() && authorization != &*identity.principal.name {
            return Err(TokenError::Message(AuthenticationError::new(
                "Authentication failed: Client requested an authorization id that is different from the token's principal name",
            )));
        }
        Ok(identity)
    }
}

enum TokenError {
    Message(AuthenticationError),
    Token(String),
}

/// A request between the tokens: it learns nothing. Kafka answers with the request's own error; of the requests that clients
/// send there, only Metadata has no field for it and looks like any other answer.
fn out_of_place(header: &RequestHeader) -> Step {
    let reason = format!("API key {} in the midst of authentication", header.api_key);
    let is_metadata = header.api_key == ApiKey::Metadata.code()
        && ApiKey::Metadata.versions().contains(&header.api_version);
    let response = is_metadata
        .then(|| MetadataResponse { error_code: ErrorCode::IllegalSaslState.code(), ..Default::default() })
        .and_then(|response| encoded(ApiKey::Metadata, header, &response));
    Step::Refused(response, reason)
}

fn closed(reason: &str) -> Step {
    Step::Refused(None, reason.to_owned())
}

fn reply(response: Option<Response>) -> Step {
    match response {
        Some(response) => Step::Reply(response),
        None => closed("the answer could not be encoded"),
    }
}

fn done(response: Option<Response>, session: Session) -> Step {
    match response {
        Some(response) => Step::Done(response, session),
        None => closed("the answer could not be encoded"),
    }
}

fn encoded(key: ApiKey, header: &RequestHeader, body: &impl Message) -> Option<Response> {
    let segments = encode_response_frame(key, header.api_version, header.correlation_id, body).ok()?;
    Some(Response { segments, ..Default::default() })
}

/// A token with its length, as KIP-43 sends it.
fn framed(token: &Bytes) -> Option<Response> {
    let mut encoder = Encoder::new();
    encoder.bytes(token, false).ok()?;
    Some(Response { segments: encoder.finish(), ..Default::default() })
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
