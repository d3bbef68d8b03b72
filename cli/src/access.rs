//! How a command makes itself known to a cluster and keeps its bytes from others: TLS and SASL by flags, by a profile, or by a
//! file of Kafka's client properties.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use ottla_broker::security::properties::{Properties, Secret};
use ottla_broker::security::sasl::Mechanism;
use ottla_broker::security::sasl::settings::ClientLogin;
use ottla_broker::security::{ClientSecurity, SecurityProtocol};
use ottla_metadata::properties;
use serde::Deserialize;

use crate::failure::Failure;

/// The variable that may hold a password, where there is no file for it.
const PASSWORD: &str = "OTTLA_SASL_PASSWORD";
/// How users sign in when nobody says.
const MECHANISM_DEFAULT: Mechanism = Mechanism::ScramSha512;

/// What can be typed, or stand in a profile.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "TLS and SASL")]
pub(crate) struct Flags {
    /// Speak TLS, with the system's authorities unless --tls-ca names others
    #[arg(long, global = true)]
    pub(crate) tls: bool,
    /// Certificates of authorities, PEM; speaks TLS
    #[arg(
        long,
        visible_alias = "ca",
        global = true,
        env = "OTTLA_TLS_CA",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Certificate to show, PEM; speaks TLS
    #[arg(
        long,
        visible_alias = "cert",
        global = true,
        env = "OTTLA_TLS_CERT",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(
        long,
        visible_alias = "key",
        global = true,
        env = "OTTLA_TLS_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// How to sign in: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER [default: SCRAM-SHA-512]
    #[arg(
        long,
        global = true,
        env = "OTTLA_SASL_MECHANISM",
        value_name = "MECHANISM",
        hide_env_values = true
    )]
    pub(crate) sasl_mechanism: Option<String>,
    /// Who signs in; with --sasl-delegation-token the id of a token
    #[arg(long, global = true, env = "OTTLA_SASL_USER", value_name = "NAME", hide_env_values = true)]
    pub(crate) sasl_user: Option<String>,
    /// File whose first line is the password [default: the variable OTTLA_SASL_PASSWORD]
    #[arg(
        long,
        global = true,
        env = "OTTLA_SASL_PASSWORD_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(crate) sasl_password_file: Option<PathBuf>,
    /// File that holds a token of an authority; signs in by OAUTHBEARER
    #[arg(long, global = true, env = "OTTLA_SASL_TOKEN_FILE", value_name = "FILE", hide_env_values = true)]
    pub(crate) sasl_token_file: Option<PathBuf>,
    /// The user is a delegation token, the password its HMAC ('ottla token create')
    #[arg(long, global = true)]
    pub(crate) sasl_delegation_token: bool,
    /// File of Kafka's client properties: security.protocol, ssl.*, sasl.mechanism, sasl.jaas.config
    #[arg(long, global = true, env = "OTTLA_COMMAND_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub(crate) command_config: Option<PathBuf>,
    /// What the gRPC addresses speak, where that is not what the Kafka addresses do: PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL
    #[arg(
        long,
        global = true,
        env = "OTTLA_SERVER_PROTOCOL",
        value_name = "PROTOCOL",
        hide_env_values = true
    )]
    pub(crate) server_protocol: Option<SecurityProtocolName>,
}

/// A protocol as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct SecurityProtocolName(SecurityProtocol);

impl std::str::FromStr for SecurityProtocolName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for SecurityProtocolName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Flags {
    /// What was typed, and for the rest what the profile says.
    pub(crate) fn or(self, profile: Self) -> Self {
        Self {
            tls: self.tls || profile.tls,
            tls_ca: self.tls_ca.or(profile.tls_ca),
            tls_cert: self.tls_cert.or(profile.tls_cert),
            tls_key: self.tls_key.or(profile.tls_key),
            sasl_mechanism: self.sasl_mechanism.or(profile.sasl_mechanism),
            sasl_user: self.sasl_user.or(profile.sasl_user),
            sasl_password_file: self.sasl_password_file.or(profile.sasl_password_file),
            sasl_token_file: self.sasl_token_file.or(profile.sasl_token_file),
            sasl_delegation_token: self.sasl_delegation_token || profile.sasl_delegation_token,
            command_config: self.command_config.or(profile.command_config),
            server_protocol: self.server_protocol.or(profile.server_protocol),
        }
    }
}

/// How a command reaches listeners.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// Kafka's names.
    properties: Arc<Properties>,
    login: Option<ClientLogin>,
    /// What was asked for.
    protocol: SecurityProtocol,
    server_protocol: SecurityProtocol,
}

impl Default for Access {
    fn default() -> Self {
        let protocol = SecurityProtocol::Plaintext;
        Self { properties: Arc::default(), login: None, protocol, server_protocol: protocol }
    }
}

impl Access {
    /// Reads files and passwords.
    pub(crate) fn new(flags: &Flags) -> anyhow::Result<Self> {
        let mut all = match &flags.command_config {
            Some(file) => read_properties(file)?,
            None => Properties::new(),
        };
        let configured = match all.get("security.protocol") {
            Some(name) => {
                name.parse().map_err(|error| Failure::usage(format!("security.protocol: {error}")))?
            }
            None => SecurityProtocol::Plaintext,
        };
        let login = login(flags, &all)?;
        let uses_tls = tls(flags, &mut all)? || configured.uses_tls();
        let protocol = protocol(uses_tls, login.is_some() || configured.uses_sasl());
        let server_protocol = flags.server_protocol.map_or(protocol, |name| name.0);
        let access = Self { properties: Arc::new(all), login, protocol, server_protocol };
        // What cannot work is told before anything is asked of a cluster.
        access.to(access.protocol)?;
        access.server()?;
        Ok(access)
    }

    /// For the gRPC addresses.
    pub(crate) fn server(&self) -> Result<ClientSecurity, Failure> {
        self.to(self.server_protocol)
    }

    /// For a listener that speaks this.
    pub(crate) fn to(&self, protocol: SecurityProtocol) -> Result<ClientSecurity, Failure> {
        ClientSecurity::open(protocol, &self.properties, self.login.as_ref())
            .map_err(|error| Failure::usage(error.to_string()).hint("see 'TLS and SASL' in --help"))
    }

    /// What was asked for.
    pub(crate) fn protocol(&self) -> SecurityProtocol {
        self.protocol
    }

    /// Which of the listeners that the admin plane names are taken, the best first. No password goes out without the TLS that
    /// was asked for.
    pub(crate) fn preferred(&self) -> &'static [SecurityProtocol] {
        use SecurityProtocol::{Plaintext, SaslPlaintext, SaslSsl, Ssl};
        match self.protocol {
            Plaintext => &[Plaintext],
            Ssl => &[Ssl, Plaintext],
            SaslPlaintext => &[SaslPlaintext, SaslSsl, Plaintext],
            SaslSsl => &[SaslSsl, Ssl, Plaintext],
        }
    }

    /// Whether the admin plane knows who calls.
    pub(crate) fn is_known(&self) -> bool {
        self.server_protocol != SecurityProtocol::Plaintext
    }
}

fn protocol(tls: bool, sasl: bool) -> SecurityProtocol {
    match (tls, sasl) {
        (false, false) => SecurityProtocol::Plaintext,
        (true, false) => SecurityProtocol::Ssl,
        (false, true) => SecurityProtocol::SaslPlaintext,
        (true, true) => SecurityProtocol::SaslSsl,
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn read_properties(file: &Path) -> anyhow::Result<Properties> {
    Ok(properties::parse(&read(file)?).into_iter().map(|entry| (entry.name, entry.value)).collect())
}

/// Puts the certificates among the properties; whether there are any.
fn tls(flags: &Flags, properties: &mut Properties) -> anyhow::Result<bool> {
    let mut set = |name: &str, value: String| drop(properties.insert(name.to_owned(), value));
    if let Some(file) = &flags.tls_ca {
        set("ssl.truststore.type", "PEM".to_owned());
        set("ssl.truststore.certificates", read(file)?);
        set("ssl.truststore.location", String::new());
    }
    match (&flags.tls_cert, &flags.tls_key) {
        (Some(certificate), Some(key)) => {
            set("ssl.keystore.type", "PEM".to_owned());
            set("ssl.keystore.location", String::new());
            set("ssl.keystore.certificate.chain", read(certificate)?);
            set("ssl.keystore.key", read(key)?);
        }
        (None, None) => {}
        _ => return Err(Failure::usage("--tls-cert and --tls-key go together").into()),
    }
    Ok(flags.tls || flags.tls_ca.is_some() || flags.tls_cert.is_some())
}

/// Who signs in by what the flags say; `None`: they say nothing of it.
fn login(flags: &Flags, properties: &Properties) -> anyhow::Result<Option<ClientLogin>> {
    if let Some(file) = &flags.sasl_token_file {
        let password = Secret::new(read(file)?.trim());
        let mechanism = Mechanism::OauthBearer;
        return Ok(Some(ClientLogin { mechanism, user: String::new(), password, by_token: false }));
    }
    let Some(user) = &flags.sasl_user else {
        let said = flags.sasl_password_file.is_some() || flags.sasl_delegation_token;
        let hint = "--sasl-user NAME, or --sasl-token-file FILE";
        return match &flags.sasl_mechanism {
            None if !said => Ok(None),
            // The file says the rest.
            Some(_) if !said && properties.contains_key("sasl.jaas.config") => Ok(None),
            _ => Err(Failure::usage("who signs in?").hint(hint).into()),
        };
    };
    let named = flags.sasl_mechanism.as_deref().or(properties.get("sasl.mechanism").map(String::as_str));
    let mechanism = match named {
        None => MECHANISM_DEFAULT,
        Some(name) => Mechanism::from_name(&name.to_ascii_uppercase()).ok_or_else(|| {
            let known = Mechanism::ALL.map(Mechanism::name).join(", ");
            Failure::usage(format!("'{name}' is no SASL mechanism")).hint(format!("one of: {known}"))
        })?,
    };
    if mechanism == Mechanism::OauthBearer {
        return Err(Failure::usage("OAUTHBEARER needs a token").hint("--sasl-token-file FILE").into());
    }
    let text = match &flags.sasl_password_file {
        Some(file) => read(file)?,
        None => std::env::var(PASSWORD).map_err(|_| {
            Failure::usage(format!("{user} needs a password"))
                .hint(format!("--sasl-password-file FILE, or the variable {PASSWORD}"))
        })?,
    };
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        return Err(Failure::usage("the password is empty").into());
    }
    let by_token = flags.sasl_delegation_token;
    Ok(Some(ClientLogin { mechanism, user: user.clone(), password: Secret::new(password), by_token }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn flags_say_what_is_spoken() {
        assert_eq!(Access::new(&Flags::default()).unwrap().protocol(), SecurityProtocol::Plaintext);
        let password = file("secret\n");
        let user = Flags {
            sasl_user: Some("alice".into()),
            sasl_password_file: Some(password.path().into()),
            ..Flags::default()
        };
        let access = Access::new(&user).unwrap();
        assert_eq!(access.protocol(), SecurityProtocol::SaslPlaintext);
        let login = access.login.clone().unwrap();
        assert_eq!((login.mechanism, login.password.expose()), (Mechanism::ScramSha512, "secret"));
        let plain = SecurityProtocolName(SecurityProtocol::Plaintext);
        let mixed = Access::new(&Flags { server_protocol: Some(plain), ..user.clone() }).unwrap();
        assert!(!mixed.is_known() && mixed.protocol() == SecurityProtocol::SaslPlaintext);
        let token = file("a.b.c\n");
        let bearer = Flags { sasl_token_file: Some(token.path().into()), ..Flags::default() };
        assert_eq!(Access::new(&bearer).unwrap().login.unwrap().mechanism, Mechanism::OauthBearer);
        for wrong in [
            Flags { sasl_mechanism: Some("MD5".into()), ..user.clone() },
            Flags { sasl_mechanism: Some("OAUTHBEARER".into()), ..user.clone() },
            Flags { sasl_password_file: Some("/no/such".into()), ..user.clone() },
            Flags { sasl_user: None, ..user },
            Flags { tls_cert: Some("x".into()), ..Flags::default() },
            Flags { command_config: Some("/no/such".into()), ..Flags::default() },
        ] {
            assert!(Access::new(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_of_kafkas_properties_is_understood() {
        let properties = file(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config=org.apache.kafka.common.\
             security.scram.ScramLoginModule required username=\"bob\" password=\"p w\";\n",
        );
        let flags = Flags { command_config: Some(properties.path().into()), ..Flags::default() };
        let access = Access::new(&flags).unwrap();
        assert_eq!(access.protocol(), SecurityProtocol::SaslPlaintext);
        assert!(format!("{:?}", access.server().unwrap()).contains("bob"));
        let wrong = file("security.protocol=SASL_PLAINTEXT\nsasl.mechanism=GSSAPI\n");
        let flags = Flags { command_config: Some(wrong.path().into()), ..Flags::default() };
        assert!(Access::new(&flags).unwrap_err().to_string().contains("GSSAPI"));
    }
}
