//! What SASL is on one listener: mechanisms, users, tokens, times.

use std::sync::Arc;
use std::time::Duration;

use super::Mechanism;
use super::jaas::Jaas;
use super::oauthbearer::{AuthorityKeys, TokenValidator};
use super::plain::PlainUsers;
use crate::security::SecurityError;
use crate::security::properties::{ListenerProperties, Secret};

/// SASL on one listener. Holds secrets; what prints it does not.
#[derive(Debug, Default)]
pub struct SaslSettings {
    /// Offered mechanisms, in the order of `sasl.enabled.mechanisms`, each with its `connections.max.reauth.ms` (0: never).
    pub mechanisms: Vec<(Mechanism, i64)>,
    /// Users of PLAIN.
    pub plain: PlainUsers,
    /// Judge of OAUTHBEARER's tokens.
    pub tokens: Option<TokenValidator>,
    /// `sasl.server.max.receive.size`: longest message before a client is known, in bytes.
    pub receive_bytes_max: usize,
    /// `connection.failed.authentication.delay.ms`: how long a refused client waits for the news.
    pub failure_delay: Duration,
}

impl SaslSettings {
    /// Reads a listener's properties; `keys` are the keys of the authority, where its URL is set.
    pub fn read(
        properties: &ListenerProperties,
        keys: Option<&Arc<AuthorityKeys>>,
    ) -> Result<Self, SecurityError> {
        let mut settings = Self {
            receive_bytes_max: usize::try_from(properties.number("sasl.server.max.receive.size"))
                .unwrap_or(usize::MAX),
            failure_delay: Duration::from_millis(
                u64::try_from(properties.number("connection.failed.authentication.delay.ms")).unwrap_or(0),
            ),
            ..Self::default()
        };
        for name in properties.list("sasl.enabled.mechanisms") {
            let Some(mechanism) = Mechanism::from_name(name) else {
                // Kafka's default is Kerberos alone; a list that names it beside others still works for the others.
                continue;
            };
            settings.add(mechanism, properties, keys)?;
        }
        if settings.mechanisms.is_empty() {
            let known = Mechanism::ALL.map(Mechanism::name).join(", ");
            return Err(SecurityError::new(
                "sasl.enabled.mechanisms",
                format!("names no mechanism that is offered: use {known}"),
            ));
        }
        Ok(settings)
    }

    fn add(
        &mut self,
        mechanism: Mechanism,
        properties: &ListenerProperties,
        keys: Option<&Arc<AuthorityKeys>>,
    ) -> Result<(), SecurityError> {
        if self.mechanisms.iter().any(|(known, _)| *known == mechanism) {
            return Ok(());
        }
        let jaas = server_jaas(properties, mechanism)?;
        match mechanism {
            Mechanism::Plain => {
                let jaas = jaas.ok_or_else(|| {
                    SecurityError::new(
                        "sasl.jaas.config",
                        "PLAIN needs its users: set listener.name.<listener>.plain.sasl.jaas.config",
                    )
                })?;
                self.plain = PlainUsers::from_jaas(&jaas);
            }
            Mechanism::OauthBearer => {
                let jaas = jaas.unwrap_or_default();
                self.tokens = Some(TokenValidator::new(properties, &jaas, keys.cloned()));
            }
            // Users are in the metadata.
            Mechanism::ScramSha256 | Mechanism::ScramSha512 => {}
        }
        let reauth_ms = properties
            .of_mechanism(mechanism.name(), "connections.max.reauth.ms")
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        self.mechanisms.push((mechanism, reauth_ms));
        Ok(())
    }

    /// The names of the mechanisms.
    pub fn mechanism_names(&self) -> impl Iterator<Item = &'static str> {
        self.mechanisms.iter().map(|(mechanism, _)| mechanism.name())
    }

    /// `connections.max.reauth.ms` of a mechanism; `None`: it is not offered.
    pub fn reauth_ms(&self, mechanism: Mechanism) -> Option<i64> {
        self.mechanisms.iter().find(|(known, _)| *known == mechanism).map(|(_, reauth_ms)| *reauth_ms)
    }
}

/// The JAAS line of a mechanism; one that names another mechanism's module is none.
fn server_jaas(properties: &ListenerProperties, mechanism: Mechanism) -> Result<Option<Jaas>, SecurityError> {
    let Some(text) = properties.of_mechanism(mechanism.name(), "sasl.jaas.config") else { return Ok(None) };
    let jaas = Jaas::parse(text).map_err(|error| SecurityError::new("sasl.jaas.config", error))?;
    Ok(Some(jaas).filter(|jaas| jaas.is_module(mechanism.login_module())))
}

/// How somebody authenticates to a listener.
#[derive(Debug, Clone)]
pub struct ClientLogin {
    /// By what.
    pub mechanism: Mechanism,
    /// As whom; of OAUTHBEARER nobody, for the token says it.
    pub user: String,
    /// With what: a password, or a token.
    pub password: Secret,
    /// The user is the id of a delegation token, the password its HMAC.
    pub by_token: bool,
}

const INTER_BROKER: &str = "sasl.mechanism.inter.broker.protocol";
const CONTROLLER: &str = "sasl.mechanism.controller.protocol";
const JAAS: &str = "sasl.jaas.config";

impl ClientLogin {
    /// `sasl.mechanism.inter.broker.protocol` and the user of that mechanism's JAAS line on the brokers' listener.
    pub fn read(properties: &ListenerProperties) -> Result<Self, SecurityError> {
        let name = properties.get(INTER_BROKER);
        let mechanism = Mechanism::from_name(name)
            .filter(|mechanism| *mechanism != Mechanism::OauthBearer)
            .ok_or_else(|| {
            let message = format!("{name} is not offered between brokers: use PLAIN or SCRAM");
            SecurityError::new(INTER_BROKER, message)
        })?;
        Self::of_line(properties, mechanism)
    }

    /// As [`Self::read`], for the gRPC listener: `sasl.mechanism.controller.protocol`. Users of SCRAM are in the metadata, which
    /// controllers that start have yet to agree on: they cannot let each other in by it.
    pub fn of_node(properties: &ListenerProperties) -> Result<Self, SecurityError> {
        let name = properties.set(CONTROLLER).or_else(|| properties.set(INTER_BROKER)).unwrap_or("nothing");
        match Mechanism::from_name(name) {
            Some(Mechanism::Plain) => Self::of_line(properties, Mechanism::Plain),
            _ => {
                let message = format!(
                    "{name} is not offered between controllers: use PLAIN, or certificates (SSL); SCRAM's users are in \
                     the metadata, which is not there before the controllers know each other"
                );
                Err(SecurityError::new(CONTROLLER, message))
            }
        }
    }

    /// By the properties of Kafka's clients.
    pub fn of_client(properties: &ListenerProperties) -> Result<Self, SecurityError> {
        const MECHANISM: &str = "sasl.mechanism";
        const TOKEN_URL: &str = "sasl.oauthbearer.token.endpoint.url";
        let name = properties.set(MECHANISM).unwrap_or("GSSAPI");
        let mechanism = Mechanism::from_name(name).ok_or_else(|| {
            let known = Mechanism::ALL.map(Mechanism::name).join(", ");
            SecurityError::new(MECHANISM, format!("{name} is not known: use {known}"))
        })?;
        if mechanism != Mechanism::OauthBearer {
            return Self::of_line(properties, mechanism);
        }
        let file = properties.set(TOKEN_URL).and_then(|url| url.strip_prefix("file:"));
        let file = file.ok_or_else(|| {
            SecurityError::new(TOKEN_URL, "is missing: name the file that holds the token, file:///PATH")
        })?;
        let token = std::fs::read_to_string(file.strip_prefix("//").unwrap_or(file))
            .map_err(|error| SecurityError::new(TOKEN_URL, format!("{file}: {error}")))?;
        let password = Secret::new(token.trim());
        Ok(Self { mechanism, user: String::new(), password, by_token: false })
    }

    fn of_line(properties: &ListenerProperties, mechanism: Mechanism) -> Result<Self, SecurityError> {
        let jaas = server_jaas(properties, mechanism)?.unwrap_or_default();
        let (Some(user), Some(password)) = (jaas.option("username"), jaas.option("password")) else {
            let message = format!(
                "the line of {mechanism} needs username and password: they say who calls, also from node to node"
            );
            return Err(SecurityError::new(JAAS, message));
        };
        let by_token = jaas.option("tokenauth").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        Ok(Self { mechanism, user: user.to_owned(), password: Secret::new(password), by_token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> ListenerProperties {
        let all = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ListenerProperties::new(Arc::new(all), "TLS")
    }

    const PLAIN: (&str, &str) = (
        "listener.name.tls.plain.sasl.jaas.config",
        "a.PlainLoginModule required username=\"broker\" password=\"b\" user_broker=\"b\";",
    );

    #[test]
    fn mechanisms_and_their_times_are_read() {
        let settings = SaslSettings::read(
            &properties(&[
                ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,GSSAPI"),
                PLAIN,
                ("listener.name.tls.plain.connections.max.reauth.ms", "5000"),
            ]),
            None,
        )
        .unwrap();
        assert_eq!(settings.mechanisms, [(Mechanism::Plain, 5000), (Mechanism::ScramSha256, 0)]);
        assert_eq!(settings.receive_bytes_max, 524_288);
        assert_eq!(settings.failure_delay, Duration::from_millis(100));
        assert!(settings.plain.authenticate(b"\0broker\0b").is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = SaslSettings::read(&properties(&[]), None).unwrap_err();
        assert_eq!(error.property, "sasl.enabled.mechanisms");
        let error =
            SaslSettings::read(&properties(&[("sasl.enabled.mechanisms", "PLAIN")]), None).unwrap_err();
        assert_eq!(error.property, "sasl.jaas.config");
    }

    #[test]
    fn a_broker_logs_in_by_the_line_of_its_mechanism() {
        const MECHANISM: &str = "sasl.mechanism.inter.broker.protocol";
        let login = ClientLogin::read(&properties(&[(MECHANISM, "PLAIN"), PLAIN])).unwrap();
        assert_eq!((login.user.as_str(), login.password.expose()), ("broker", "b"));
        assert!(ClientLogin::read(&properties(&[PLAIN])).is_err());
        assert!(ClientLogin::read(&properties(&[(MECHANISM, "SCRAM-SHA-512"), PLAIN])).is_err());
    }
}
