//! Every form of store, made by OpenSSL and Java's keytool.

use std::path::PathBuf;
use std::sync::Arc;

use super::*;

const CERTIFICATE: &str = include_str!("fixtures/certificate.pem");
const ENCRYPTED_KEY: &str = include_str!("fixtures/encrypted-key.pem");

fn fixture(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "src/security/tls/fixtures", name].iter().collect();
    path.to_str().unwrap().to_owned()
}

fn view(pairs: &[(&str, &str)]) -> ListenerProperties {
    let all = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ListenerProperties::new(Arc::new(all), "TLS")
}

fn key(pairs: &[(&str, &str)]) -> Result<KeyMaterial, String> {
    key_material(&view(pairs)).map(Option::unwrap).map_err(|error| error.to_string())
}

#[test]
fn an_encrypted_inline_key_opens_by_its_password() {
    let pairs = [
        ("ssl.keystore.type", "PEM"),
        ("ssl.keystore.certificate.chain", CERTIFICATE),
        ("ssl.keystore.key", ENCRYPTED_KEY),
        ("ssl.key.password", "key-secret"),
    ];
    let material = key(&pairs).unwrap();
    assert_eq!(material.chain.len(), 1);
    let subject = crate::security::distinguished_name::subject(&material.chain[0]);
    assert_eq!(subject.as_deref(), Some("CN=localhost,O=tests"));
    assert!(key(&pairs[..3]).err().unwrap().contains("ssl.key.password"));
    assert!(key(&pairs[..2]).err().unwrap().contains("ssl.keystore.key"));
}

#[test]
fn stores_of_java_open_to_the_same_key() {
    let inline = key(&[
        ("ssl.keystore.certificate.chain", CERTIFICATE),
        ("ssl.keystore.key", ENCRYPTED_KEY),
        ("ssl.key.password", "key-secret"),
    ])
    .unwrap();
    for (name, store_type) in [("key.p12", "PKCS12"), ("key.jks", "JKS"), ("key.p12", "JKS")] {
        let location = fixture(name);
        let with = |password| {
            key(&[
                ("ssl.keystore.type", store_type),
                ("ssl.keystore.location", &location),
                ("ssl.keystore.password", password),
            ])
        };
        let material = with("store-secret").unwrap();
        assert_eq!(material.chain, inline.chain, "{name}");
        assert_eq!(material.key.secret_der(), inline.key.secret_der(), "{name}");
        assert!(with("wrong").is_err());
    }
}

#[test]
fn authorities_come_out_of_every_form() {
    let expected = certificates("ssl.truststore.certificates", CERTIFICATE).unwrap();
    for (name, store_type) in [("trust.p12", "PKCS12"), ("trust.jks", "JKS"), ("certificate.pem", "PEM")] {
        let location = fixture(name);
        let found = trusted(&view(&[
            ("ssl.truststore.type", store_type),
            ("ssl.truststore.location", &location),
            ("ssl.truststore.password", "trust-secret"),
        ]));
        assert_eq!(found.unwrap().unwrap(), expected, "{name}");
    }
    assert!(trusted(&view(&[])).unwrap().is_none());
}

#[test]
fn broken_stores_are_errors() {
    let bytes = fs::read(fixture("key.jks")).unwrap();
    for length in 0..bytes.len() {
        assert!(open(&bytes[..length], Some("store-secret"), Some("store-secret")).is_err());
        // Without the digest the rest must not be believed either.
        drop(open(&bytes[..length], None, Some("store-secret")));
    }
    let bytes = fs::read(fixture("key.p12")).unwrap();
    for length in (0..bytes.len()).step_by(7) {
        assert!(open(&bytes[..length], Some("store-secret"), None).is_err());
    }
    let missing = trusted(&view(&[("ssl.truststore.location", "/nowhere")])).unwrap_err();
    assert!(missing.to_string().contains("/nowhere"));
}
