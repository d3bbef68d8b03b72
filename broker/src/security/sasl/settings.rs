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

/// How this broker authenticates to another.
#[derive(Debug, Clone)]
pub struct ClientLogin {
    /// By what.
    pub mechanism: Mechanism,
    /// As whom.
    pub user: String,
    /// With what.
    pub password: Secret,
}

impl ClientLogin {
    /// `sasl.mechanism.inter.broker.protocol` and the user of that mechanism's JAAS line on the brokers' listener.
    pub fn read(properties: &ListenerProperties) -> Result<Self, SecurityError> {
        const MECHANISM: &str = "sasl.mechanism.inter.broker.protocol";
        let name = properties.get(MECHANISM);
        let mechanism = Mechanism::from_name(name)
            .filter(|mechanism| *mechanism != Mechanism::OauthBearer)
            .ok_or_else(|| {
            let message = format!("{name} is not offered between brokers: use PLAIN or SCRAM");
            SecurityError::new(MECHANISM, message)
        })?;
        let jaas = server_jaas(properties, mechanism)?.unwrap_or_default();
        let (Some(user), Some(password)) = (jaas.option("username"), jaas.option("password")) else {
            let message = format!(
                "brokers authenticate to each other by {mechanism}: the line of that mechanism needs username and password"
            );
            return Err(SecurityError::new("sasl.jaas.config", message));
        };
        Ok(Self { mechanism, user: user.to_owned(), password: Secret::new(password) })
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
