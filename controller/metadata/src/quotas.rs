//! Client quotas (KIP-55, KIP-546, KIP-599, KIP-612): how fast whom may go, and which limit holds for a client.
//!
//! A limit belongs to an entity: a user, a client id, both, or an address; each part is named or is the default of its
//! type. The most specific entity that has a limit of a key wins, key by key.

use std::collections::BTreeMap;

use ottla_proto::metadata as proto;

/// Bytes a second that producers may send.
pub const PRODUCER_BYTE_RATE: &str = "producer_byte_rate";
/// Bytes a second that consumers may fetch.
pub const CONSUMER_BYTE_RATE: &str = "consumer_byte_rate";
/// Percent of one thread's time (KIP-124).
pub const REQUEST_PERCENTAGE: &str = "request_percentage";
/// Partitions a second that may be created or deleted (KIP-599).
pub const CONTROLLER_MUTATION_RATE: &str = "controller_mutation_rate";
/// Connections a second from an address (KIP-612).
pub const CONNECTION_CREATION_RATE: &str = "connection_creation_rate";

/// Type of an entity's part: the user.
pub const USER: &str = "user";
/// Type of an entity's part: the client id.
pub const CLIENT_ID: &str = "client-id";
/// Type of an entity's part: the address.
pub const IP: &str = "ip";

/// A limit. Never NaN, so that it equals itself.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate(f64);

impl Eq for Rate {}

type Limits = BTreeMap<String, Rate>;

/// Things by name, and the one of everybody who has none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named<T> {
    by_name: BTreeMap<String, T>,
    default: Option<T>,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), default: None }
    }
}

impl<T: Default> Named<T> {
    fn slot(&mut self, name: Option<&str>) -> &mut T {
        match name {
            Some(name) => self.by_name.entry(name.to_owned()).or_default(),
            None => self.default.get_or_insert_default(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Option<&str>, &T)> {
        let default = self.default.as_ref().map(|value| (None, value));
        default.into_iter().chain(self.by_name.iter().map(|(name, value)| (Some(name.as_str()), value)))
    }

    fn remove_if(&mut self, name: Option<&str>, is_empty: impl Fn(&T) -> bool) {
        match name {
            Some(name) if self.by_name.get(name).is_some_and(&is_empty) => drop(self.by_name.remove(name)),
            None if self.default.as_ref().is_some_and(&is_empty) => self.default = None,
            _ => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.default.is_none()
    }
}

/// The limits of a user by itself, and together with client ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct UserLimits {
    own: Limits,
    clients: Named<Limits>,
}

/// Whom a limit is for. A part that is absent does not matter; a part without a name is the default of its type.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaEntity {
    /// The user.
    pub user: Option<Option<String>>,
    /// The client id.
    pub client_id: Option<Option<String>>,
    /// The address.
    pub ip: Option<Option<String>>,
}

/// Why parts make no entity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntityError {
    /// No part.
    #[error("Invalid empty client quota entity")]
    Empty,
    /// A type that is none.
    #[error("Unhandled client quota entity type: {0}")]
    UnknownType(String),
    /// A type twice.
    #[error("Duplicate entity type: {0}")]
    Repeated(String),
    /// A name of no characters.
    #[error("Empty {0} name")]
    EmptyName(String),
    /// An address together with a user or client id.
    #[error("Invalid client quota entity: an ip stands alone")]
    Combination,
}

impl QuotaEntity {
    /// The entity that its parts make.
    pub fn from_parts(parts: &[proto::QuotaEntityPart]) -> Result<Self, EntityError> {
        let mut entity = Self::default();
        for part in parts {
            let place = match part.r#type.as_str() {
                USER => &mut entity.user,
                CLIENT_ID => &mut entity.client_id,
                IP => &mut entity.ip,
                other => return Err(EntityError::UnknownType(other.to_owned())),
            };
            if part.name.as_deref() == Some("") {
                return Err(EntityError::EmptyName(part.r#type.clone()));
            }
            if place.replace(part.name.clone()).is_some() {
                return Err(EntityError::Repeated(part.r#type.clone()));
            }
        }
        match (&entity.user, &entity.client_id, &entity.ip) {
            (None, None, None) => Err(EntityError::Empty),
            (None, None, Some(_)) | (_, _, None) => Ok(entity),
            _ => Err(EntityError::Combination),
        }
    }

    /// Its parts, for a record or an answer.
    pub fn parts(&self) -> Vec<proto::QuotaEntityPart> {
        [(USER, &self.user), (CLIENT_ID, &self.client_id), (IP, &self.ip)]
            .into_iter()
            .filter_map(|(kind, part)| {
                Some(proto::QuotaEntityPart { r#type: kind.to_owned(), name: part.clone()? })
            })
            .collect()
    }

    /// The part of a type: absent, default or named.
    pub fn part(&self, kind: &str) -> Option<Option<&str>> {
        let part = match kind {
            USER => &self.user,
            CLIENT_ID => &self.client_id,
            IP => &self.ip,
            _ => return None,
        };
        part.as_ref().map(Option::as_deref)
    }
}

/// The limit that holds for a client, and who shares it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClientQuota {
    /// The limit.
    pub value: f64,
    /// Each user has one of its own; otherwise all users share it.
    pub per_user: bool,
    /// Each client id has one of its own; otherwise all client ids share it.
    pub per_client_id: bool,
}

/// All limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientQuotas {
    users: Named<UserLimits>,
    clients: Named<Limits>,
    ips: Named<Limits>,
}

impl ClientQuotas {
    /// Whether there is no limit at all.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.clients.is_empty() && self.ips.is_empty()
    }

    /// The limit of a key for a client: of the user with the client id, of the user, of the client id, each named before
    /// default (KIP-55's order). `None`: none.
    pub fn quota_for(&self, user: &str, client_id: &str, key: &str) -> Option<ClientQuota> {
        let rate = |limits: Option<&Limits>| limits?.get(key).map(|rate| rate.0);
        let of_user = |found: Option<&UserLimits>| {
            let found = found?;
            let of_client = rate(found.clients.by_name.get(client_id))
                .or_else(|| rate(found.clients.default.as_ref()))
                .map(|value| ClientQuota { value, per_user: true, per_client_id: true });
            let own = || {
                rate(Some(&found.own)).map(|value| ClientQuota {
                    value,
                    per_user: true,
                    per_client_id: false,
                })
            };
            of_client.or_else(own)
        };
        of_user(self.users.by_name.get(user)).or_else(|| of_user(self.users.default.as_ref())).or_else(|| {
            rate(self.clients.by_name.get(client_id))
                .or_else(|| rate(self.clients.default.as_ref()))
                .map(|value| ClientQuota { value, per_user: false, per_client_id: true })
        })
    }

    /// The limit of a key for an address. `None`: none.
    pub fn quota_for_ip(&self, ip: &str, key: &str) -> Option<f64> {
        let named = self.ips.by_name.get(ip).and_then(|limits| limits.get(key));
        named.or_else(|| self.ips.default.as_ref()?.get(key)).map(|rate| rate.0)
    }

    /// What an entity itself has.
    pub fn get(&self, entity: &QuotaEntity, key: &str) -> Option<f64> {
        let by = |named: &Option<String>, all: &Named<Limits>| match named {
            Some(name) => all.by_name.get(name).cloned(),
            None => all.default.clone(),
        };
        let limits = match (&entity.user, &entity.client_id, &entity.ip) {
            (Some(user), client_id, _) => {
                let found = match user {
                    Some(name) => self.users.by_name.get(name),
                    None => self.users.default.as_ref(),
                }?;
                match client_id {
                    Some(client_id) => by(client_id, &found.clients),
                    None => Some(found.own.clone()),
                }
            }
            (None, Some(client_id), _) => by(client_id, &self.clients),
            (None, None, Some(ip)) => by(ip, &self.ips),
            (None, None, None) => None,
        }?;
        limits.get(key).map(|rate| rate.0)
    }

    /// Every entity with its limits.
    pub fn iter(&self) -> impl Iterator<Item = (QuotaEntity, Vec<(&str, f64)>)> {
        fn values(limits: &Limits) -> Vec<(&str, f64)> {
            limits.iter().map(|(key, rate)| (key.as_str(), rate.0)).collect()
        }
        let owned = |name: Option<&str>| Some(name.map(str::to_owned));
        let users = self.users.iter().flat_map(move |(user, found)| {
            let own = QuotaEntity { user: owned(user), ..QuotaEntity::default() };
            let clients = found.clients.iter().map(move |(client, limits)| {
                let entity =
                    QuotaEntity { user: owned(user), client_id: owned(client), ..QuotaEntity::default() };
                (entity, values(limits))
            });
            std::iter::once((own, values(&found.own))).chain(clients)
        });
        let clients = self.clients.iter().map(move |(client, limits)| {
            (QuotaEntity { client_id: owned(client), ..QuotaEntity::default() }, values(limits))
        });
        let ips = self.ips.iter().map(move |(ip, limits)| {
            (QuotaEntity { ip: owned(ip), ..QuotaEntity::default() }, values(limits))
        });
        users.chain(clients).chain(ips).filter(|(_, values)| !values.is_empty())
    }

    /// Sets a limit, or removes it. What is left empty goes.
    pub(crate) fn set(&mut self, entity: &QuotaEntity, key: &str, value: Option<f64>) {
        let change = |limits: &mut Limits| match value {
            Some(value) => drop(limits.insert(key.to_owned(), Rate(value))),
            None => drop(limits.remove(key)),
        };
        let client = entity.client_id.as_ref().map(Option::as_deref);
        if let Some(user) = &entity.user {
            let user = user.as_deref();
            let found = self.users.slot(user);
            match client {
                Some(client) => {
                    change(found.clients.slot(client));
                    found.clients.remove_if(client, Limits::is_empty);
                }
                None => change(&mut found.own),
            }
            self.users.remove_if(user, |found| found.own.is_empty() && found.clients.is_empty());
        } else if let Some(client) = client {
            change(self.clients.slot(client));
            self.clients.remove_if(client, Limits::is_empty);
        } else if let Some(ip) = &entity.ip {
            change(self.ips.slot(ip.as_deref()));
            self.ips.remove_if(ip.as_deref(), Limits::is_empty);
        }
    }

    /// The records that make them.
    pub(crate) fn to_records(&self) -> impl Iterator<Item = proto::ClientQuotaRecord> {
        self.iter().flat_map(|(entity, values)| {
            let parts = entity.parts();
            values.into_iter().map(move |(key, value)| proto::ClientQuotaRecord {
                entity: parts.clone(),
                key: key.to_owned(),
                value: Some(value),
            })
        })
    }
}
