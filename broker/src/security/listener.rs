//! Everything of a listener's security that may change while the broker runs. A change counts for connections that come
//! after it; those that are open go on.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;

use super::credentials::Credentials;
use super::failures::Failures;
use super::principal::Principal;
use super::principal_mapping::PrincipalMapping;
use super::properties::{ListenerProperties, Properties};
use super::protocol::SecurityProtocol;
use super::sasl::SaslSettings;
use super::sasl::oauthbearer::AuthorityKeys;
use super::{SecurityError, tls};

/// One listener's security, as its connections use it.
pub(crate) struct ListenerSecurity {
    name: String,
    protocol: SecurityProtocol,
    tls: Option<ArcSwap<ServerConfig>>,
    sasl: Option<ArcSwap<SaslSettings>>,
    mapping: PrincipalMapping,
    authority: Option<(String, Arc<AuthorityKeys>)>,
    pub(crate) credentials: Credentials,
    failures: Mutex<Failures>,
    /// Clients that were not who they said they are, or whose TLS handshake failed.
    failed: AtomicU64,
}

impl ListenerSecurity {
    /// Reads a listener's properties and stores.
    pub(crate) fn open(
        name: &str,
        protocol: SecurityProtocol,
        properties: &Arc<Properties>,
        credentials: Credentials,
    ) -> Result<Self, SecurityError> {
        const RULES: &str = "ssl.principal.mapping.rules";
        let view = ListenerProperties::new(Arc::clone(properties), name);
        let mapping =
            PrincipalMapping::parse(view.get(RULES)).map_err(|message| SecurityError::new(RULES, message))?;
        let authority = view
            .set("sasl.oauthbearer.jwks.endpoint.url")
            .filter(|_| protocol.uses_sasl())
            .map(|url| (url.to_owned(), Arc::new(AuthorityKeys::default())));
        let tls = protocol.uses_tls().then(|| tls::server_config(&view, protocol.into())).transpose()?;
        let keys = authority.as_ref().map(|(_, keys)| keys);
        let sasl = protocol.uses_sasl().then(|| SaslSettings::read(&view, keys)).transpose()?;
        let (tls, sasl) = (tls.map(ArcSwap::new), sasl.map(ArcSwap::from_pointee));
        Ok(Self {
            name: name.to_owned(),
            protocol,
            tls,
            sasl,
            mapping,
            authority,
            credentials,
            failures: Mutex::default(),
            failed: AtomicU64::default(),
        })
    }

    /// What properties would make of the listener.
    fn read(
        &self,
        properties: &Arc<Properties>,
    ) -> Result<(Option<Arc<ServerConfig>>, Option<SaslSettings>), SecurityError> {
        let view = ListenerProperties::new(Arc::clone(properties), &self.name);
        let server =
            self.tls.as_ref().map(|_| tls::server_config(&view, self.protocol.into())).transpose()?;
        let keys = self.authority.as_ref().map(|(_, keys)| keys);
        let settings = self.sasl.as_ref().map(|_| SaslSettings::read(&view, keys)).transpose()?;
        Ok((server, settings))
    }

    /// Whether properties can be used; nothing changes.
    pub(crate) fn check(&self, properties: &Arc<Properties>) -> Result<(), SecurityError> {
        self.read(properties).map(drop)
    }

    /// Reads properties and stores anew. After an error everything is as it was.
    pub(crate) fn reload(&self, properties: &Arc<Properties>) -> Result<(), SecurityError> {
        let (server, settings) = self.read(properties)?;
        if let (Some(current), Some(server)) = (&self.tls, server) {
            current.store(server);
        }
        if let (Some(current), Some(settings)) = (&self.sasl, settings) {
            current.store(Arc::new(settings));
        }
        Ok(())
    }

    /// Its name, upper case.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What a new TLS connection is answered with; `None`: no TLS.
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(ArcSwap::load_full)
    }

    /// What an authentication is judged by; `None`: no SASL.
    pub(crate) fn sasl(&self) -> Option<Arc<SaslSettings>> {
        self.sasl.as_ref().map(ArcSwap::load_full)
    }

    /// An authentication from an address has failed: how long the news of it waits.
    pub(crate) fn failed(&self, address: IpAddr) -> Duration {
        self.count_failure();
        let base = self.sasl().map_or(Duration::ZERO, |settings| settings.failure_delay);
        self.failures.lock().count(address, base, Instant::now())
    }

    /// A client was refused before its first request.
    pub(crate) fn count_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many clients were refused before their first request, since the start.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The address of the authority's keys, and where they go.
    pub(crate) fn authority(&self) -> Option<(&str, &Arc<AuthorityKeys>)> {
        self.authority.as_ref().map(|(url, keys)| (url.as_str(), keys))
    }

    /// Who a client without SASL is, by the subject of its certificate; `None`: no rule names it.
    pub(crate) fn principal(&self, subject: Option<&str>) -> Option<Principal> {
        match subject {
            Some(subject) => self.mapping.name(subject).map(Principal::user),
            None => Some(Principal::anonymous()),
        }
    }
}
