//! TLS 1.2 and 1.3 by rustls, configured by Kafka's `ssl.*` properties.

mod jks;
mod pem;
mod store;
pub(super) mod unchecked;
mod unnamed;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::SecurityError;
use super::properties::ListenerProperties;
use super::protocol::SecurityProtocol;
pub(crate) use store::files;

const CLIENT_AUTH: &str = "ssl.client.auth";
const PROTOCOLS: &str = "ssl.enabled.protocols";
const CIPHERS: &str = "ssl.cipher.suites";

/// Which `ssl.client.auth` counts for a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// The listener's own, or the one for all.
    OfAll,
    /// The listener's own alone: its clients have another way to say who they are.
    OfListenerAlone,
}

impl From<SecurityProtocol> for ClientAuth {
    /// As in Kafka: SASL clients are asked for certificates only where the listener itself says so.
    fn from(protocol: SecurityProtocol) -> Self {
        if protocol.uses_sasl() { Self::OfListenerAlone } else { Self::OfAll }
    }
}

/// The certificates, DER, that properties give a listener to show of itself, whatever form their store has; none: no store is set.
pub fn own_certificates(properties: &ListenerProperties) -> Result<Vec<Vec<u8>>, SecurityError> {
    store::own_chain(properties)
}

/// What a listener answers TLS clients with.
pub(crate) fn server_config(
    properties: &ListenerProperties,
    client_auth: ClientAuth,
) -> Result<Arc<ServerConfig>, SecurityError> {
    let provider = provider(properties)?;
    let material = store::key_material(properties)?.ok_or_else(|| {
        SecurityError::new(
            "ssl.keystore.location",
            "is missing: a TLS listener needs a key store, or ssl.keystore.key and ssl.keystore.certificate.chain",
        )
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(properties)?)
        .map_err(|error| SecurityError::new(PROTOCOLS, error.to_string()))?;
    let builder = match client_verifier(properties, client_auth, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let config = builder
        .with_single_cert(material.chain, material.key)
        .map_err(|error| SecurityError::new("ssl.keystore.location", error.to_string()))?;
    Ok(Arc::new(config))
}

/// How a client's certificate is checked; `None`: it is not asked for.
fn client_verifier(
    properties: &ListenerProperties,
    client_auth: ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, SecurityError> {
    let wanted = match client_auth {
        ClientAuth::OfAll => properties.get(CLIENT_AUTH),
        ClientAuth::OfListenerAlone => properties.own(CLIENT_AUTH).unwrap_or("none"),
    };
    let required = match wanted.to_ascii_lowercase().as_str() {
        "required" => true,
        "requested" => false,
        _ => return Ok(None),
    };
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(properties)?), provider);
    let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
    let verifier =
        verifier.build().map_err(|error| SecurityError::new("ssl.truststore.location", error.to_string()))?;
    Ok(Some(verifier))
}

/// What this broker calls others with.
pub(crate) fn client_config(properties: &ListenerProperties) -> Result<Arc<ClientConfig>, SecurityError> {
    let provider = provider(properties)?;
    let roots = Arc::new(roots(properties)?);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(properties)?)
        .map_err(|error| SecurityError::new(PROTOCOLS, error.to_string()))?;
    let builder = if properties.is_empty("ssl.endpoint.identification.algorithm") {
        let verifier = unnamed::UnnamedVerifier::new(roots, provider)
            .map_err(|error| SecurityError::new("ssl.truststore.location", error.to_string()))?;
        builder.dangerous().with_custom_certificate_verifier(verifier)
    } else {
        builder.with_root_certificates(roots)
    };
    let config = match store::key_material(properties)? {
        Some(material) => builder
            .with_client_auth_cert(material.chain, material.key)
            .map_err(|error| SecurityError::new("ssl.keystore.location", error.to_string()))?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// The trusted authorities: those that are set, or the system's.
pub(crate) fn roots(properties: &ListenerProperties) -> Result<RootCertStore, SecurityError> {
    const LOCATION: &str = "ssl.truststore.location";
    let mut roots = RootCertStore::empty();
    match store::trusted(properties)? {
        Some(all) => {
            for certificate in all {
                roots.add(certificate).map_err(|error| {
                    SecurityError::new(LOCATION, format!("a certificate is no use: {error}"))
                })?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(SecurityError::new(LOCATION, "is missing, and the system has no authorities of its own"));
    }
    Ok(roots)
}

fn versions(
    properties: &ListenerProperties,
) -> Result<Vec<&'static SupportedProtocolVersion>, SecurityError> {
    let mut versions = Vec::new();
    for name in properties.list(PROTOCOLS) {
        versions.push(match name {
            "TLSv1.2" => &rustls::version::TLS12,
            "TLSv1.3" => &rustls::version::TLS13,
            other => {
                let message = format!("{other} is not offered: use TLSv1.2 and TLSv1.3");
                return Err(SecurityError::new(PROTOCOLS, message));
            }
        });
    }
    Ok(versions)
}

/// The cryptography, with the cipher suites that are set. Given by hand: another crate of the process may bring its own.
fn provider(properties: &ListenerProperties) -> Result<Arc<CryptoProvider>, SecurityError> {
    let mut provider = rustls::crypto::ring::default_provider();
    let wanted = properties.list(CIPHERS);
    if !wanted.is_empty() {
        // The names of TLS 1.3 have a number more here than elsewhere.
        let named = |suite: &rustls::SupportedCipherSuite| {
            let name = format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
            wanted.contains(&name.as_str())
        };
        provider.cipher_suites.retain(named);
        if provider.cipher_suites.is_empty() {
            return Err(SecurityError::new(CIPHERS, "names no cipher suite that is offered"));
        }
    }
    Ok(Arc::new(provider))
}

/// The subject of the certificate that a client has shown.
pub(crate) fn subject(certificates: Option<&[CertificateDer<'_>]>) -> Option<String> {
    super::distinguished_name::subject(certificates?.first()?)
}
