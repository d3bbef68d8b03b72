//! What users sign in with: SCRAM credentials (KIP-554) and delegation tokens (KIP-48, KIP-900).

use ottla_proto::metadata as proto;

/// A mechanism of SCRAM. The numbers are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256 = 1,
    /// SCRAM-SHA-512.
    Sha512 = 2,
}

impl ScramMechanism {
    /// The mechanism of a number.
    pub fn from_code(code: i32) -> Option<Self> {
        match code {
            1 => Some(Self::Sha256),
            2 => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Its number.
    pub fn code(self) -> i8 {
        self as i8
    }

    /// Its name in SASL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// Bytes of its keys.
    pub fn key_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// What a server keeps of a password (RFC 5802). Shown without its keys.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    /// Salt.
    pub salt: bytes::Bytes,
    /// Checks the client's proof.
    pub stored_key: bytes::Bytes,
    /// Makes the server's signature.
    pub server_key: bytes::Bytes,
    /// Rounds of hashing.
    pub iterations: i32,
}

impl std::fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramCredential").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl ScramCredential {
    pub(crate) fn from_record(record: &proto::ScramCredentialRecord) -> Self {
        Self {
            salt: record.salt.clone(),
            stored_key: record.stored_key.clone(),
            server_key: record.server_key.clone(),
            iterations: record.iterations,
        }
    }

    pub(crate) fn to_record(&self, user: &str, mechanism: ScramMechanism) -> proto::ScramCredentialRecord {
        proto::ScramCredentialRecord {
            user: user.to_owned(),
            mechanism: mechanism.code().into(),
            salt: self.salt.clone(),
            stored_key: self.stored_key.clone(),
            server_key: self.server_key.clone(),
            iterations: self.iterations,
        }
    }
}

/// Somebody: a type, nearly always `User`, and a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// The type.
    pub kind: String,
    /// The name.
    pub name: String,
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

impl Principal {
    /// From a record or command.
    pub fn from_proto(principal: &proto::Principal) -> Self {
        Self { kind: principal.r#type.clone(), name: principal.name.clone() }
    }

    /// For a record or command.
    pub fn to_proto(&self) -> proto::Principal {
        proto::Principal { r#type: self.kind.clone(), name: self.name.clone() }
    }
}

/// A delegation token. Its HMAC, the password, is not here: it follows from the id and the brokers' secret key. Times in
/// milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegationToken {
    /// Its id, the user name of who signs in with it.
    pub id: String,
    /// For whom it stands.
    pub owner: Principal,
    /// Who asked for it.
    pub requester: Principal,
    /// Who may renew it beside the owner.
    pub renewers: Vec<Principal>,
    /// When it was made.
    pub issue_ms: i64,
    /// When it ends unless it is renewed.
    pub expiry_ms: i64,
    /// Beyond which no renewal goes.
    pub max_ms: i64,
}

impl DelegationToken {
    /// Whether somebody may renew or end it.
    pub fn may_be_managed_by(&self, principal: &Principal) -> bool {
        self.owner == *principal || self.renewers.contains(principal)
    }

    /// Whether it counts no more.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expiry_ms < now_ms || self.max_ms < now_ms
    }

    /// A token from its record; `None`: nobody owns it.
    pub(crate) fn from_record(record: &proto::DelegationTokenRecord) -> Option<Self> {
        let owner = Principal::from_proto(record.owner.as_ref()?);
        Some(Self {
            id: record.token_id.clone(),
            requester: record.requester.as_ref().map_or_else(|| owner.clone(), Principal::from_proto),
            owner,
            renewers: record.renewers.iter().map(Principal::from_proto).collect(),
            issue_ms: record.issue_ms,
            expiry_ms: record.expiry_ms,
            max_ms: record.max_ms,
        })
    }

    pub(crate) fn to_record(&self) -> proto::DelegationTokenRecord {
        proto::DelegationTokenRecord {
            token_id: self.id.clone(),
            owner: Some(self.owner.to_proto()),
            requester: Some(self.requester.to_proto()),
            renewers: self.renewers.iter().map(Principal::to_proto).collect(),
            issue_ms: self.issue_ms,
            expiry_ms: self.expiry_ms,
            max_ms: self.max_ms,
        }
    }
}
