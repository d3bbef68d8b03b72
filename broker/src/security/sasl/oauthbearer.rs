//! OAUTHBEARER (RFC 7628, KIP-255, KIP-768): the client brings a token, which is checked by the authority's keys.
//!
//! Without `sasl.oauthbearer.jwks.endpoint.url` tokens are taken unsigned, as Kafka's default does: for trials only.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::jaas::Jaas;
use super::jwt::{Jwt, KeySet};
use super::{AuthenticationError, Identity};
use crate::security::principal::Principal;
use crate::security::properties::ListenerProperties;

/// Sign between the parts of a message.
const SEPARATOR: char = '\u{1}';
/// What a refused client answers before it hears the error.
pub const ABORT: &[u8] = b"\x01";

/// The authority's keys, refreshed by a task beside the connections.
#[derive(Debug, Default)]
pub struct AuthorityKeys {
    keys: ArcSwap<KeySet>,
    /// A token named a key that is not here: worth looking for it.
    wanted: Notify,
}

impl AuthorityKeys {
    /// Replaces the keys.
    pub fn publish(&self, keys: KeySet) {
        self.keys.store(Arc::new(keys));
    }

    /// Waits until a token named an unknown key.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

/// How tokens are trusted.
#[derive(Debug, Clone)]
enum Trust {
    /// Signed by the authority.
    Signed(Arc<AuthorityKeys>),
    /// Not at all: `alg` must be `none`. With the scopes that a token must have.
    Unsecured { required_scopes: Vec<String> },
}

/// Checks tokens.
#[derive(Debug, Clone)]
pub struct TokenValidator {
    trust: Trust,
    subject_claim: String,
    scope_claim: String,
    issuer: Option<String>,
    audiences: Vec<String>,
    clock_skew_ms: i64,
}

impl TokenValidator {
    /// By a listener's properties; `keys` are those of its authority, `None` without one.
    pub fn new(properties: &ListenerProperties, jaas: &Jaas, keys: Option<Arc<AuthorityKeys>>) -> Self {
        let clock_skew_ms = properties.number("sasl.oauthbearer.clock.skew.seconds").saturating_mul(1000);
        match keys {
            Some(keys) => Self {
                trust: Trust::Signed(keys),
                subject_claim: properties.get("sasl.oauthbearer.sub.claim.name").to_owned(),
                scope_claim: properties.get("sasl.oauthbearer.scope.claim.name").to_owned(),
                issuer: properties.set("sasl.oauthbearer.expected.issuer").map(str::to_owned),
                audiences: properties
                    .list("sasl.oauthbearer.expected.audience")
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                clock_skew_ms,
            },
            None => {
                let option = |name: &str, default: &str| jaas.option(name).unwrap_or(default).to_owned();
                let scopes = option("unsecuredValidatorRequiredScope", "");
                let skew = jaas.option("unsecuredValidatorAllowableClockSkewMs");
                Self {
                    trust: Trust::Unsecured {
                        required_scopes: scopes.split_whitespace().map(str::to_owned).collect(),
                    },
                    subject_claim: option("unsecuredValidatorPrincipalClaimName", "sub"),
                    scope_claim: option("unsecuredValidatorScopeClaimName", "scope"),
                    issuer: None,
                    audiences: Vec::new(),
                    clock_skew_ms: skew.and_then(|text| text.parse().ok()).unwrap_or(0),
                }
            }
        }
    }

    /// Checks a token at a time; the error is for the log and the client.
    pub fn validate(&self, token: &str, now_ms: i64) -> Result<Identity, String> {
        let jwt = Jwt::parse(token)?;
        self.check_signature(&jwt)?;
        let expires_at_ms = jwt.time_ms("exp")?.ok_or("the token says not when it expires")?;
        let issued_at_ms = jwt.time_ms("iat")?;
        let skew = self.clock_skew_ms;
        if expires_at_ms.saturating_add(skew) <= now_ms {
            return Err("the token has expired".to_owned());
        }
        let not_before = jwt.time_ms("nbf")?.max(issued_at_ms);
        if not_before.is_some_and(|from_ms| from_ms > now_ms.saturating_add(skew)) {
            return Err("the token is not valid yet".to_owned());
        }
        if matches!(self.trust, Trust::Signed(_)) && issued_at_ms.is_none() {
            return Err("the token says not when it was issued".to_owned());
        }
        if self.issuer.as_deref().is_some_and(|issuer| jwt.text("iss") != Some(issuer)) {
            return Err("the token is of another issuer".to_owned());
        }
        if !self.audiences.is_empty() && !jwt.has_one_of("aud", &self.audiences) {
            return Err("the token is for another audience".to_owned());
        }
        self.check_scopes(&jwt)?;
        let subject = jwt
            .text(&self.subject_claim)
            .ok_or_else(|| format!("the token has no {}", self.subject_claim))?;
        Ok(Identity { principal: Principal::user(subject), expires_at_ms: Some(expires_at_ms) })
    }

    fn check_signature(&self, jwt: &Jwt<'_>) -> Result<(), String> {
        match &self.trust {
            Trust::Signed(authority) => {
                let keys = authority.keys.load();
                if keys.verify(jwt) {
                    return Ok(());
                }
                if !keys.knows(jwt) {
                    authority.wanted.notify_one();
                }
                Err("the token's signature is not one of the authority".to_owned())
            }
            Trust::Unsecured { .. } if jwt.algorithm() == "none" && !jwt.is_signed() => Ok(()),
            Trust::Unsecured { .. } => Err("only unsigned tokens are taken here".to_owned()),
        }
    }

    fn check_scopes(&self, jwt: &Jwt<'_>) -> Result<(), String> {
        let Trust::Unsecured { required_scopes } = &self.trust else { return Ok(()) };
        let listed = jwt.text(&self.scope_claim).unwrap_or_default();
        let has = |scope: &String| {
            listed.split_whitespace().any(|one| one == scope)
                || jwt.has_one_of(&self.scope_claim, std::slice::from_ref(scope))
        };
        match required_scopes.iter().find(|scope| !has(scope)) {
            Some(missing) => Err(format!("the token has not the scope {missing}")),
            None => Ok(()),
        }
    }
}

/// A client's one message (RFC 7628, 3.1).
pub fn message(token: &str) -> Vec<u8> {
    format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}").into_bytes()
}

/// The token out of a client's first message, and the authorization id that it asks for.
pub fn parse_message(message: &[u8]) -> Result<(&str, &str), AuthenticationError> {
    let wrong = || AuthenticationError::new("Invalid OAUTHBEARER client first message");
    let text = std::str::from_utf8(message).map_err(|_| wrong())?;
    let (header, rest) = text.split_once(SEPARATOR).ok_or_else(wrong)?;
    let authorization =
        header.strip_prefix("n,").and_then(|text| text.strip_suffix(',')).ok_or_else(wrong)?;
    let authorization = match authorization {
        "" => "",
        other => other.strip_prefix("a=").ok_or_else(wrong)?,
    };
    let body = rest.strip_suffix("\u{1}\u{1}").ok_or_else(wrong)?;
    let token = body
        .split(SEPARATOR)
        .find_map(|item| item.strip_prefix("auth="))
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty())
        .ok_or_else(wrong)?;
    Ok((token, authorization))
}

/// What a refused client is told first.
pub fn error_message() -> &'static [u8] {
    br#"{"status":"invalid_token"}"#
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use serde_json::{Value, json};

    use super::*;

    fn unsecured(claims: &Value) -> String {
        format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(claims.to_string()))
    }

    fn validator(jaas: &str) -> TokenValidator {
        let properties = ListenerProperties::new(Arc::default(), "X");
        TokenValidator::new(&properties, &Jaas::parse(jaas).unwrap(), None)
    }

    #[test]
    fn an_unsigned_token_is_taken_while_it_lasts() {
        let validator = validator("a.OAuthBearerLoginModule required;");
        let token = unsecured(&json!({"sub": "alice", "exp": 100, "iat": 10}));
        let identity = validator.validate(&token, 50_000).unwrap();
        assert_eq!((identity.principal, identity.expires_at_ms), (Principal::user("alice"), Some(100_000)));
        assert!(validator.validate(&token, 100_000).is_err());
        assert!(validator.validate(&token, 9_999).is_err());
        assert!(validator.validate(&unsecured(&json!({"exp": 100})), 0).is_err());
        assert!(validator.validate(&unsecured(&json!({"sub": "alice"})), 0).is_err());
    }

    #[test]
    fn scopes_that_are_required_must_be_there() {
        let validator = validator(
            "a.B required unsecuredValidatorRequiredScope=\"read write\" unsecuredValidatorAllowableClockSkewMs=\"5\";",
        );
        let token = |scope: Value| unsecured(&json!({"sub": "a", "exp": 1, "scope": scope}));
        assert!(validator.validate(&token(json!("write read")), 1_004).is_ok());
        assert!(validator.validate(&token(json!(["read", "write"])), 0).is_ok());
        assert!(validator.validate(&token(json!("read")), 0).is_err());
    }

    #[test]
    fn a_signed_listener_takes_no_unsigned_token() {
        let properties = ListenerProperties::new(Arc::default(), "X");
        let keys = Arc::new(AuthorityKeys::default());
        let jaas = Jaas::parse("a.B required;").unwrap();
        let validator = TokenValidator::new(&properties, &jaas, Some(keys));
        assert!(validator.validate(&unsecured(&json!({"sub": "a", "exp": 9, "iat": 0})), 0).is_err());
    }

    #[test]
    fn messages_are_taken_apart() {
        assert_eq!(parse_message(b"n,,\x01auth=Bearer a.b.c\x01\x01").unwrap(), ("a.b.c", ""));
        assert_eq!(parse_message(b"n,a=me,\x01ext=1\x01auth=bearer x\x01\x01").unwrap(), ("x", "me"));
        for wrong in
            [&b""[..], b"n,,\x01auth=Bearer x", b"n,,\x01auth=Basic x\x01\x01", b"n,,\x01\x01", b"\x01"]
        {
            assert!(parse_message(wrong).is_err());
        }
    }
}
