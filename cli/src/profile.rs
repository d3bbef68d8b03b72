//! Connection profiles: `~/.config/ottla/config.toml`, or the file that `--config` names.
//!
//! ```toml
//! profile = "local"            # used when --profile names none
//!
//! [profiles.local]
//! server = "127.0.0.1:9093"
//! bootstrap = "127.0.0.1:9092"
//! timeout = "10s"
//! tls_ca = "/etc/ottla/ca.pem"     # and, where callers are known by certificates:
//! tls_cert = "/etc/ottla/me.pem"
//! tls_key = "/etc/ottla/me.key"
//! sasl_user = "alice"              # or, where they sign in:
//! sasl_password_file = "/etc/ottla/alice.password"
//! ```
//!
//! Everything of [`crate::access::Flags`] may stand there.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use crate::access::{Access, Flags, SecurityProtocolName};
use crate::arguments::Global;
use crate::failure::Failure;
use crate::output::Output;
use crate::parse;

/// Where a cluster is looked for when nobody says.
const SERVER_DEFAULT: &str = "127.0.0.1:9093";
/// How long a command waits when nobody says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// The file of profiles.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profiles {
    profile: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
}

/// One profile: besides the addresses everything of [`Flags`].
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    server: Option<String>,
    bootstrap: Option<String>,
    timeout: Option<String>,
    #[serde(default)]
    tls: bool,
    tls_ca: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    sasl_mechanism: Option<String>,
    sasl_user: Option<String>,
    sasl_password_file: Option<PathBuf>,
    sasl_token_file: Option<PathBuf>,
    #[serde(default)]
    sasl_delegation_token: bool,
    command_config: Option<PathBuf>,
    server_protocol: Option<SecurityProtocolName>,
}

impl Profile {
    fn flags(self) -> Flags {
        Flags {
            tls: self.tls,
            tls_ca: self.tls_ca,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            sasl_mechanism: self.sasl_mechanism,
            sasl_user: self.sasl_user,
            sasl_password_file: self.sasl_password_file,
            sasl_token_file: self.sasl_token_file,
            sasl_delegation_token: self.sasl_delegation_token,
            command_config: self.command_config,
            server_protocol: self.server_protocol,
        }
    }
}

/// How a command reaches its cluster and shows its results: flags and environment before the profile before the defaults.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// gRPC addresses, at least one.
    pub(crate) servers: Vec<String>,
    /// Kafka addresses; empty: those that the admin plane names.
    pub(crate) bootstrap: Vec<String>,
    /// How long to wait for an answer.
    pub(crate) timeout: Duration,
    /// Whether the user has said how long.
    pub(crate) timeout_given: Option<Duration>,
    /// TLS and SASL.
    pub(crate) access: Access,
    /// Where results go.
    pub(crate) output: Output,
}

impl Session {
    /// Reads the profile, if there is one.
    pub(crate) fn new(global: &Global) -> anyhow::Result<Self> {
        let profile = load(global.profiles.as_deref(), global.profile.as_deref())?;
        let access = Access::new(&global.access.clone().or(profile.clone().flags()))?;
        let server = global.server.clone().or(profile.server).unwrap_or_else(|| SERVER_DEFAULT.to_owned());
        let servers = addresses(&server, "--server")?;
        if servers.is_empty() {
            return Err(Failure::usage("--server names no address")
                .hint("write HOST:PORT[,HOST:PORT…]")
                .into());
        }
        let bootstrap = match global.bootstrap.clone().or(profile.bootstrap) {
            Some(text) => addresses(&text, "--bootstrap")?,
            None => Vec::new(),
        };
        let of_profile =
            profile.timeout.as_deref().map(parse::duration).transpose().map_err(Failure::usage)?;
        let timeout_given = global.timeout.or(of_profile);
        Ok(Self {
            servers,
            bootstrap,
            timeout: timeout_given.unwrap_or(TIMEOUT_DEFAULT),
            timeout_given,
            access,
            output: Output { format: global.output, quiet: global.quiet },
        })
    }
}

/// `host:port,host:port`.
fn addresses(text: &str, flag: &str) -> Result<Vec<String>, Failure> {
    let all = text.split(',').map(str::trim).filter(|address| !address.is_empty());
    all.map(|address| {
        let port = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty())
            .map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(_)) => Ok(address.to_owned()),
            _ => Err(Failure::usage(format!("{flag}: '{address}' is no address")).hint("write HOST:PORT")),
        }
    })
    .collect()
}

fn load(file: Option<&Path>, name: Option<&str>) -> anyhow::Result<Profile> {
    let Some(path) = file.map(Path::to_owned).or_else(usual_file) else {
        return choose(Profiles::default(), name, Path::new("~/.config/ottla/config.toml"));
    };
    let profiles = match std::fs::read_to_string(&path) {
        Ok(text) => {
            toml::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?
        }
        // Nobody must have profiles; but who names a file means it.
        Err(error) if error.kind() == ErrorKind::NotFound && file.is_none() => Profiles::default(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    choose(profiles, name, &path)
}

fn choose(profiles: Profiles, name: Option<&str>, path: &Path) -> anyhow::Result<Profile> {
    let Some(name) = name.or(profiles.profile.as_deref()) else { return Ok(Profile::default()) };
    profiles.profiles.get(name).cloned().ok_or_else(|| {
        let known = profiles.profiles.keys().cloned().collect::<Vec<_>>().join(", ");
        let hint =
            if known.is_empty() { "the file has no profiles".to_owned() } else { format!("it has {known}") };
        Failure::usage(format!("no profile \"{name}\" in {}", path.display())).hint(hint).into()
    })
}

fn usual_file() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(base.join("ottla").join("config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    const FILE: &str = "profile = \"local\"\n[profiles.local]\nserver = \"h:1\"\ntimeout = \"5s\"\n[profiles.far]\nserver = \"f:1,g:2\"\n";

    fn global(file: &Path, profile: Option<&str>) -> Global {
        Global {
            server: None,
            bootstrap: None,
            access: Flags::default(),
            output: Format::Table,
            quiet: false,
            timeout: None,
            profile: profile.map(str::to_owned),
            profiles: Some(file.to_owned()),
        }
    }

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_flag_goes_before_the_profile_and_the_profile_before_the_default() {
        let file = written(FILE);
        let session = Session::new(&global(file.path(), None)).unwrap();
        assert_eq!((session.servers, session.timeout), (vec!["h:1".to_owned()], Duration::from_secs(5)));
        let session = Session::new(&global(file.path(), Some("far"))).unwrap();
        assert_eq!((session.servers.len(), session.timeout), (2, TIMEOUT_DEFAULT));
        let mut flags = global(file.path(), None);
        flags.server = Some("x:9".into());
        assert_eq!(Session::new(&flags).unwrap().servers, ["x:9"]);
    }

    #[test]
    fn an_unknown_profile_or_key_is_refused() {
        let file = written(FILE);
        let error = Session::new(&global(file.path(), Some("nowhere"))).unwrap_err().to_string();
        assert!(error.contains("no profile \"nowhere\""), "{error}");
        let file = written("[profiles.a]\nserfer = \"x\"\n");
        assert!(Session::new(&global(file.path(), None)).unwrap_err().to_string().contains("serfer"));
        assert!(Session::new(&global(Path::new("/no/such/file"), None)).is_err());
    }

    #[test]
    fn a_profile_says_who_signs_in_and_a_flag_goes_before_it() {
        let password = written("secret");
        let text = format!("[profiles.a]\nsasl_user = \"x\"\nsasl_password_file = {:?}\n", password.path());
        let file = written(&text);
        let session = Session::new(&global(file.path(), Some("a"))).unwrap();
        assert!(format!("{:?}", session.access.server().unwrap()).contains("\"x\""));
        let mut flags = global(file.path(), Some("a"));
        flags.access.sasl_user = Some("y".into());
        assert!(format!("{:?}", Session::new(&flags).unwrap().access.server().unwrap()).contains("\"y\""));
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        assert_eq!(addresses("a:1, b:2,", "--server").unwrap(), ["a:1", "b:2"]);
        assert_eq!(addresses("[::1]:9093", "--server").unwrap(), ["[::1]:9093"]);
        for wrong in ["a", "a:", ":1", "a:x", "a:70000"] {
            assert!(addresses(wrong, "--server").is_err(), "{wrong}");
        }
    }
}
