//! From the metadata to what guards this node: credentials and quotas follow each image.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ottla_metadata::credentials;
use ottla_metadata::image::{MetadataDelta, MetadataImage};

use super::credentials::{CredentialSnapshot, Credentials, ScramCredential, TokenCredential};
use super::principal::Principal;
use super::sasl::scram::ScramMechanism;
use super::tokens::TokenSecret;
use crate::quotas::{QuotaLimits, Quotas};

/// Publishes what an image says of credentials and quotas; `delta` is what changed, `None`: everything may have.
pub(crate) struct Publisher {
    credentials: Credentials,
    quotas: Arc<Quotas>,
    secret: Option<TokenSecret>,
}

impl Publisher {
    /// `secret` is that of delegation tokens; without it tokens are no credentials.
    pub(crate) fn new(credentials: Credentials, quotas: Arc<Quotas>, secret: Option<TokenSecret>) -> Self {
        Self { credentials, quotas, secret }
    }

    /// Takes the next image.
    pub(crate) fn apply_image(&self, image: &MetadataImage, delta: Option<&MetadataDelta>) {
        if delta.is_none_or(|delta| delta.quotas) {
            self.quotas.publish(limits(image));
        }
        let scram_changed = delta.is_none_or(|delta| !delta.scram_users.is_empty());
        let tokens_changed = delta.is_none_or(|delta| !delta.tokens.is_empty());
        if scram_changed || tokens_changed {
            let before = self.credentials.current();
            self.credentials.publish(CredentialSnapshot {
                scram: if scram_changed { scram(image) } else { Arc::clone(&before.scram) },
                tokens: if tokens_changed {
                    tokens(self.secret.as_ref(), image, &before)
                } else {
                    Arc::clone(&before.tokens)
                },
            });
        }
    }
}

/// Publishes what an image says of credentials, for a listener beside those of the broker.
pub(super) fn publish_credentials(
    credentials: &Credentials,
    secret: Option<&TokenSecret>,
    image: &MetadataImage,
) {
    let before = credentials.current();
    let tokens = tokens(secret, image, &before);
    credentials.publish(CredentialSnapshot { scram: scram(image), tokens });
}

/// A token that goes on as it was keeps what was derived of it.
fn tokens(
    secret: Option<&TokenSecret>,
    image: &MetadataImage,
    before: &CredentialSnapshot,
) -> Arc<HashMap<String, Arc<TokenCredential>>> {
    let Some(secret) = secret else { return Arc::default() };
    let credential = |token: &credentials::DelegationToken| {
        let owner = principal(&token.owner);
        let kept = before
            .tokens
            .get(&token.id)
            .filter(|known| known.owner == owner && known.expires_at_ms == token.expiry_ms);
        let credential = match kept {
            Some(known) => Arc::clone(known),
            None => Arc::new(secret.credential(&token.id, owner, token.expiry_ms)),
        };
        (token.id.clone(), credential)
    };
    Arc::new(image.delegation_tokens().map(credential).collect())
}

/// The secret that the HMACs of tokens are made with, if tokens are offered.
pub(crate) fn token_secret(properties: &BTreeMap<String, String>) -> Option<TokenSecret> {
    TokenSecret::new(properties.get("delegation.token.secret.key")?)
}

/// A principal of the metadata.
pub(crate) fn principal(principal: &credentials::Principal) -> Principal {
    Principal {
        principal_type: principal.kind.as_str().into(),
        name: principal.name.as_str().into(),
        by_token: false,
    }
}

fn scram(image: &MetadataImage) -> Arc<HashMap<(String, ScramMechanism), ScramCredential>> {
    let credential =
        |(user, mechanism, kept): (&str, credentials::ScramMechanism, &credentials::ScramCredential)| {
            let mechanism = match mechanism {
                credentials::ScramMechanism::Sha256 => ScramMechanism::Sha256,
                credentials::ScramMechanism::Sha512 => ScramMechanism::Sha512,
            };
            let credential = ScramCredential {
                salt: kept.salt.clone(),
                iterations: kept.iterations.unsigned_abs(),
                stored_key: kept.stored_key.clone(),
                server_key: kept.server_key.clone(),
            };
            ((user.to_owned(), mechanism), credential)
        };
    Arc::new(image.scram_credentials().map(credential).collect())
}

fn limits(image: &MetadataImage) -> QuotaLimits {
    let mut limits = QuotaLimits::default();
    for (entity, values) in image.client_quotas().iter() {
        let parts = entity.parts();
        let parts: Vec<_> = parts.iter().map(|part| (part.r#type.as_str(), part.name.as_deref())).collect();
        for (key, value) in values {
            limits.set(&parts, key, value);
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use ottla_metadata::image::LogIndex;
    use ottla_proto::metadata::metadata_record::Record;
    use ottla_proto::metadata::{self as records, MetadataRecord};

    use super::*;
    use crate::quotas::{QuotaKind, QuotaWindows};

    fn token(id: &str, expiry_ms: i64) -> Record {
        let owner = records::Principal { r#type: "User".to_owned(), name: "alice".to_owned() };
        Record::DelegationToken(records::DelegationTokenRecord {
            token_id: id.to_owned(),
            owner: Some(owner),
            expiry_ms,
            max_ms: 10_000,
            ..Default::default()
        })
    }

    fn scram(user: &str) -> Record {
        Record::ScramCredential(records::ScramCredentialRecord {
            user: user.to_owned(),
            mechanism: 1,
            salt: vec![1].into(),
            stored_key: vec![2; 32].into(),
            server_key: vec![3; 32].into(),
            iterations: 4096,
        })
    }

    struct Node {
        publisher: Publisher,
        image: MetadataImage,
    }

    impl Node {
        fn new() -> Self {
            let quotas = Quotas::new(QuotaWindows::default());
            let secret = TokenSecret::new("secret");
            Self {
                publisher: Publisher::new(Credentials::default(), quotas, secret),
                image: MetadataImage::default(),
            }
        }

        fn apply(&mut self, index: i64, record: Record) -> Arc<CredentialSnapshot> {
            let records = [MetadataRecord { record: Some(record) }];
            let (image, delta) = self.image.apply(LogIndex(index), &records).unwrap();
            self.image = image;
            self.publisher.apply_image(&self.image, Some(&delta));
            self.publisher.credentials.current()
        }
    }

    #[test]
    fn what_goes_on_keeps_what_was_derived_of_it() {
        let mut node = Node::new();
        let first = node.apply(0, token("one", 1_000));
        let second = node.apply(1, token("two", 1_000));
        assert!(Arc::ptr_eq(&first.tokens["one"], &second.tokens["one"]));
        let third = node.apply(2, token("one", 2_000));
        assert!(!Arc::ptr_eq(&second.tokens["one"], &third.tokens["one"]));
        assert_eq!(third.tokens["one"].expires_at_ms, 2_000);
        let fourth = node.apply(3, scram("alice"));
        assert!(Arc::ptr_eq(&third.tokens, &fourth.tokens));
        assert_eq!(fourth.user("alice", ScramMechanism::Sha256).unwrap().iterations, 4096);
        assert!(fourth.user("alice", ScramMechanism::Sha512).is_none());
    }

    #[test]
    fn a_limit_counts_when_its_image_comes_and_ends_with_it() {
        let mut node = Node::new();
        let quota = |value| {
            let entity =
                vec![records::QuotaEntityPart { r#type: "user".to_owned(), name: Some("alice".to_owned()) }];
            let key = "producer_byte_rate".to_owned();
            Record::ClientQuota(records::ClientQuotaRecord { entity, key, value })
        };
        let is_limited = |node: &Node| {
            node.publisher.quotas.is_limited(QuotaKind::Produce, &Principal::user("alice"), "c")
        };
        node.apply(0, quota(Some(10.0)));
        assert!(is_limited(&node));
        node.apply(1, quota(None));
        assert!(!is_limited(&node));
    }
}
