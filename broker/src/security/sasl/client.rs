//! The client's side of SASL: what a broker says to another before anything else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};

use super::oauthbearer::{self, ABORT};
use super::scram::ClientExchange;
use super::settings::ClientLogin;
use super::{AuthenticationError, Mechanism, plain};

/// Random bytes of a client's nonce.
const NONCE_BYTES: usize = 24;

/// One login, from the first token to the last.
pub struct ClientAuthentication<'a> {
    login: &'a ClientLogin,
    /// Of a SCRAM mechanism.
    scram: Option<ClientExchange>,
    sent: usize,
}

impl<'a> ClientAuthentication<'a> {
    /// Begins.
    pub fn new(login: &'a ClientLogin) -> Result<Self, AuthenticationError> {
        let scram = match login.mechanism.scram() {
            Some(mechanism) => {
                let mut nonce = [0; NONCE_BYTES];
                SystemRandom::new()
                    .fill(&mut nonce)
                    .map_err(|_| AuthenticationError::new("no randomness for a nonce"))?;
                Some(ClientExchange::start(mechanism, &login.user, &BASE64.encode(nonce), login.by_token))
            }
            None => None,
        };
        Ok(Self { login, scram, sent: 0 })
    }

    /// The next token, given the peer's last answer (none at first); `None` when the peer has answered the last.
    pub fn next(&mut self, answer: Option<&Bytes>) -> Result<Option<Bytes>, AuthenticationError> {
        let password = self.login.password.expose();
        let token = match (&mut self.scram, self.sent, answer) {
            (None, 0, _) if self.login.mechanism == Mechanism::OauthBearer => {
                Some(oauthbearer::message(password).into())
            }
            (None, 0, _) => Some(plain::message(&self.login.user, password).into()),
            // A token that is no good is answered by what is wrong with it, which has to be acknowledged (RFC 7628, 3.2.3).
            (None, 1, Some(error)) if !error.is_empty() => Some(Bytes::from_static(ABORT)),
            (Some(scram), 0, _) => Some(scram.first()),
            (Some(scram), 1, Some(challenge)) => Some(scram.prove(challenge, password)?),
            (Some(scram), 2, Some(last)) => {
                scram.verify(last)?;
                None
            }
            _ => None,
        };
        self.sent += 1;
        Ok(token)
    }
}
