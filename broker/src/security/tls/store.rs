//! Keys, certificates and trusted authorities, from PEM, PKCS#12 or JKS, by Kafka's `ssl.keystore.*` and `ssl.truststore.*`.

use std::fs;
use std::path::PathBuf;

use p12_keystore::{KeyStoreEntry, Pkcs12ImportPolicy};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

use super::{jks, pem};
use crate::security::SecurityError;
use crate::security::properties::ListenerProperties;

/// Longest store that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What a binary store holds.
#[derive(Default)]
pub(super) struct KeyStore {
    /// PKCS#8.
    pub(super) key: Option<Vec<u8>>,
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) trusted: Vec<Vec<u8>>,
}

/// What a node shows of itself.
pub(super) struct KeyMaterial {
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// The files that a listener's TLS is made of: what a reload looks at.
pub(crate) fn files(properties: &ListenerProperties) -> Vec<PathBuf> {
    ["ssl.keystore.location", "ssl.truststore.location"]
        .into_iter()
        .filter_map(|name| properties.set(name).map(PathBuf::from))
        .collect()
}

/// The key and certificates of a listener; `None` when none are set.
pub(super) fn key_material(properties: &ListenerProperties) -> Result<Option<KeyMaterial>, SecurityError> {
    const LOCATION: &str = "ssl.keystore.location";
    const CHAIN: &str = "ssl.keystore.certificate.chain";
    const KEY: &str = "ssl.keystore.key";
    let key_password = properties.set("ssl.key.password");
    if let Some(chain) = properties.set(CHAIN) {
        let Some(key) = properties.set(KEY) else {
            return Err(SecurityError::new(KEY, "is missing beside ssl.keystore.certificate.chain"));
        };
        let chain = certificates(CHAIN, chain)?;
        return Ok(Some(KeyMaterial { key: private_key(KEY, key, key_password)?, chain }));
    }
    if properties.set(KEY).is_some() {
        return Err(SecurityError::new(CHAIN, "is missing beside ssl.keystore.key"));
    }
    let Some(location) = properties.set(LOCATION) else { return Ok(None) };
    let bytes = read(LOCATION, location)?;
    if is_pem(properties.get("ssl.keystore.type")) {
        let text = utf8(LOCATION, bytes)?;
        let chain = certificates(LOCATION, &text)?;
        return Ok(Some(KeyMaterial { key: private_key(LOCATION, &text, key_password)?, chain }));
    }
    let password = properties.set("ssl.keystore.password");
    let store = open(&bytes, password, key_password.or(password))
        .map_err(|message| SecurityError::new(LOCATION, format!("{location}: {message}")))?;
    let key = store
        .key
        .ok_or_else(|| SecurityError::new(LOCATION, format!("{location} holds no private key that opens")))?;
    let key = PrivatePkcs8KeyDer::from(key).into();
    Ok(Some(KeyMaterial { key, chain: store.chain.into_iter().map(CertificateDer::from).collect() }))
}

/// The certificates, DER, that a listener shows of itself; the key need not open.
pub(super) fn own_chain(properties: &ListenerProperties) -> Result<Vec<Vec<u8>>, SecurityError> {
    const LOCATION: &str = "ssl.keystore.location";
    const CHAIN: &str = "ssl.keystore.certificate.chain";
    let of_text = |name, text: &str| {
        certificates(name, text).map(|all| all.iter().map(|certificate| certificate.to_vec()).collect())
    };
    if let Some(chain) = properties.set(CHAIN) {
        return of_text(CHAIN, chain);
    }
    let Some(location) = properties.set(LOCATION) else { return Ok(Vec::new()) };
    let bytes = read(LOCATION, location)?;
    if is_pem(properties.get("ssl.keystore.type")) {
        return of_text(LOCATION, &utf8(LOCATION, bytes)?);
    }
    let password = properties.set("ssl.keystore.password");
    let store = open(&bytes, password, properties.set("ssl.key.password").or(password))
        .map_err(|message| SecurityError::new(LOCATION, format!("{location}: {message}")))?;
    Ok(store.chain)
}

/// Authorities that a listener trusts; `None` when none are set.
pub(super) fn trusted(
    properties: &ListenerProperties,
) -> Result<Option<Vec<CertificateDer<'static>>>, SecurityError> {
    const LOCATION: &str = "ssl.truststore.location";
    const CERTIFICATES: &str = "ssl.truststore.certificates";
    if let Some(text) = properties.set(CERTIFICATES) {
        return certificates(CERTIFICATES, text).map(Some);
    }
    let Some(location) = properties.set(LOCATION) else { return Ok(None) };
    let bytes = read(LOCATION, location)?;
    if is_pem(properties.get("ssl.truststore.type")) {
        return certificates(LOCATION, &utf8(LOCATION, bytes)?).map(Some);
    }
    let store = open(&bytes, properties.set("ssl.truststore.password"), None)
        .map_err(|message| SecurityError::new(LOCATION, format!("{location}: {message}")))?;
    if store.trusted.is_empty() {
        return Err(SecurityError::new(LOCATION, format!("{location} holds no trusted certificate")));
    }
    Ok(Some(store.trusted.into_iter().map(CertificateDer::from).collect()))
}

fn is_pem(store_type: &str) -> bool {
    store_type.eq_ignore_ascii_case("PEM")
}

fn read(property: &'static str, location: &str) -> Result<Vec<u8>, SecurityError> {
    let fail = |error: String| SecurityError::new(property, format!("{location} cannot be read: {error}"));
    let metadata = fs::metadata(location).map_err(|error| fail(error.to_string()))?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(fail("it is too long".to_owned()));
    }
    fs::read(location).map_err(|error| fail(error.to_string()))
}

fn utf8(property: &'static str, bytes: Vec<u8>) -> Result<String, SecurityError> {
    String::from_utf8(bytes)
        .map_err(|_| SecurityError::new(property, "is no text: set the type of the store"))
}

fn certificates(property: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let blocks = pem::parse(text).map_err(|message| SecurityError::new(property, message))?;
    let all: Vec<_> = blocks
        .into_iter()
        .filter(|block| {
            matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE")
        })
        .map(|block| CertificateDer::from(block.bytes))
        .collect();
    if all.is_empty() {
        return Err(SecurityError::new(property, "holds no certificate"));
    }
    Ok(all)
}

fn private_key(
    property: &'static str,
    text: &str,
    password: Option<&str>,
) -> Result<PrivateKeyDer<'static>, SecurityError> {
    let fail = |message: &str| SecurityError::new(property, message);
    let blocks = pem::parse(text).map_err(|message| fail(&message))?;
    let block = blocks
        .into_iter()
        .find(|block| block.label.ends_with("PRIVATE KEY"))
        .ok_or_else(|| fail("holds no private key"))?;
    match block.label.as_str() {
        "PRIVATE KEY" => Ok(PrivatePkcs8KeyDer::from(block.bytes).into()),
        "RSA PRIVATE KEY" => Ok(PrivatePkcs1KeyDer::from(block.bytes).into()),
        "EC PRIVATE KEY" => Ok(PrivateSec1KeyDer::from(block.bytes).into()),
        "ENCRYPTED PRIVATE KEY" => {
            let password = password.ok_or_else(|| fail("holds an encrypted key: set ssl.key.password"))?;
            let info = EncryptedPrivateKeyInfoRef::try_from(&block.bytes[..])
                .map_err(|error| fail(&format!("holds an encrypted key that cannot be read: {error}")))?;
            let opened = info
                .decrypt(password)
                .map_err(|error| fail(&format!("the key does not open by ssl.key.password: {error}")))?;
            Ok(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec()).into())
        }
        other => Err(fail(&format!("holds a key of an unknown kind, {other}"))),
    }
}

/// Opens a binary store of either format, as Java does whatever the type says.
fn open(bytes: &[u8], password: Option<&str>, key_password: Option<&str>) -> Result<KeyStore, String> {
    if jks::is_jks(bytes) {
        return jks::parse(bytes, password, key_password);
    }
    let password = password.ok_or("a PKCS#12 store needs its password")?;
    let opened = p12_keystore::KeyStore::from_pkcs12(bytes, password, Pkcs12ImportPolicy::Relaxed)
        .map_err(|error| format!("the PKCS#12 store does not open: {error}"))?;
    let mut store = KeyStore::default();
    if let Some((_, chain)) = opened.private_key_chain() {
        store.key = Some(chain.key().as_der().to_vec());
        store.chain = chain.certs().iter().map(|certificate| certificate.as_der().to_vec()).collect();
    }
    for (_, entry) in opened.entries() {
        if let KeyStoreEntry::Certificate(certificate) = entry {
            store.trusted.push(certificate.as_der().to_vec());
        }
    }
    Ok(store)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
