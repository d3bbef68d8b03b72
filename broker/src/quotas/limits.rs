//! Which limit counts for whom (KIP-55, KIP-546): the quotas of the metadata, and the order in which they are looked for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What a quota limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaKind {
    /// `producer_byte_rate`: bytes a second of Produce requests.
    Produce,
    /// `consumer_byte_rate`: bytes a second of Fetch answers.
    Fetch,
    /// `request_percentage`: percent of one thread's time.
    Request,
    /// `controller_mutation_rate`: partitions made or removed a second.
    ControllerMutation,
}

impl QuotaKind {
    const COUNT: usize = 4;

    fn index(self) -> usize {
        match self {
            Self::Produce => 0,
            Self::Fetch => 1,
            Self::Request => 2,
            Self::ControllerMutation => 3,
        }
    }

    /// The kind of one of Kafka's keys.
    pub fn from_key(key: &str) -> Option<Self> {
        Some(match key {
            "producer_byte_rate" => Self::Produce,
            "consumer_byte_rate" => Self::Fetch,
            "request_percentage" => Self::Request,
            "controller_mutation_rate" => Self::ControllerMutation,
            _ => return None,
        })
    }
}

/// A part of an entity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Name {
    Default,
    Exactly(Arc<str>),
}

impl Name {
    fn new(name: Option<&str>) -> Self {
        name.map_or(Self::Default, |name| Self::Exactly(name.into()))
    }
}

type Entity = (Option<Name>, Option<Name>);

/// Who shares a limit: a user, a client id, or both together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Sharers {
    /// `None`: all users.
    pub user: Option<Arc<str>>,
    /// `None`: all client ids.
    pub client_id: Option<Arc<str>>,
}

/// All quotas at one moment.
#[derive(Debug, Clone, Default)]
pub struct QuotaLimits {
    limits: [HashMap<Entity, f64>; QuotaKind::COUNT],
    /// `connection_creation_rate` by address.
    addresses: HashMap<IpAddr, f64>,
    /// Of addresses without a limit of their own.
    address_default: Option<f64>,
}

impl QuotaLimits {
    /// Enters one quota: the entity as pairs of type (`user`, `client-id`, `ip`) and name (`None`: the default), Kafka's key,
    /// the limit. What makes no sense is left out.
    pub fn set(&mut self, entity: &[(&str, Option<&str>)], key: &str, limit: f64) {
        if let [("ip", name)] = entity {
            if key != "connection_creation_rate" {
                return;
            }
            match name.map(str::parse::<IpAddr>) {
                None => self.address_default = Some(limit),
                Some(Ok(address)) => {
                    self.addresses.insert(address.to_canonical(), limit);
                }
                Some(Err(_)) => {}
            }
            return;
        }
        let Some(kind) = QuotaKind::from_key(key) else { return };
        let part = |kind: &str| entity.iter().find(|(one, _)| *one == kind).map(|(_, name)| Name::new(*name));
        let (user, client) = (part("user"), part("client-id"));
        if user.is_some() || client.is_some() {
            self.limits[kind.index()].insert((user, client), limit);
        }
    }

    /// Whether nobody has a limit of a kind.
    pub fn is_unlimited(&self, kind: QuotaKind) -> bool {
        self.limits[kind.index()].is_empty()
    }

    /// The limit of a client, and with whom it shares it.
    pub fn limit(&self, kind: QuotaKind, user: &str, client_id: &str) -> Option<(f64, Sharers)> {
        let limits = &self.limits[kind.index()];
        if limits.is_empty() {
            return None;
        }
        let user_name = || Some(Name::new(Some(user)));
        let client_name = || Some(Name::new(Some(client_id)));
        let default = || Some(Name::Default);
        // From the most specific to the least.
        let candidates = [
            (user_name(), client_name()),
            (user_name(), default()),
            (user_name(), None),
            (default(), client_name()),
            (default(), default()),
            (default(), None),
            (None, client_name()),
            (None, default()),
        ];
        candidates.into_iter().find_map(|entity| {
            let limit = *limits.get(&entity)?;
            let sharers = Sharers {
                user: entity.0.map(|_| user.into()),
                client_id: entity.1.map(|_| client_id.into()),
            };
            Some((limit, sharers))
        })
    }

    /// Whether those who shared a limit still have one that they share.
    pub fn is_limit_of(&self, kind: QuotaKind, sharers: &Sharers) -> bool {
        let name = |name: &Option<Arc<str>>| name.as_deref().unwrap_or_default().to_owned();
        self.limit(kind, &name(&sharers.user), &name(&sharers.client_id))
            .is_some_and(|(_, found)| found == *sharers)
    }

    /// How many connections a second an address may open; `None`: any number.
    pub fn address_limit(&self, address: IpAddr) -> Option<f64> {
        self.addresses.get(&address.to_canonical()).copied().or(self.address_default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_limit_counts() {
        let mut limits = QuotaLimits::default();
        let order: [&[(&str, Option<&str>)]; 8] = [
            &[("client-id", None)],
            &[("client-id", Some("c"))],
            &[("user", None)],
            &[("user", None), ("client-id", None)],
            &[("user", None), ("client-id", Some("c"))],
            &[("user", Some("u"))],
            &[("client-id", None), ("user", Some("u"))],
            &[("user", Some("u")), ("client-id", Some("c"))],
        ];
        assert!(limits.is_unlimited(QuotaKind::Produce));
        for (at, entity) in order.into_iter().enumerate() {
            limits.set(entity, "producer_byte_rate", at as f64);
            let (limit, sharers) = limits.limit(QuotaKind::Produce, "u", "c").unwrap();
            assert!((limit - at as f64).abs() < 1e-9, "{entity:?}");
            assert_eq!(sharers.user.is_some(), entity.iter().any(|(kind, _)| *kind == "user"));
            assert_eq!(sharers.client_id.is_some(), entity.iter().any(|(kind, _)| *kind == "client-id"));
        }
        assert!(limits.limit(QuotaKind::Fetch, "u", "c").is_none());
    }

    #[test]
    fn others_are_not_limited() {
        let mut limits = QuotaLimits::default();
        limits.set(&[("user", Some("u"))], "consumer_byte_rate", 5.0);
        limits.set(&[("user", Some("u"))], "nonsense", 5.0);
        limits.set(&[], "consumer_byte_rate", 5.0);
        assert!(limits.limit(QuotaKind::Fetch, "v", "u").is_none());
        let (_, sharers) = limits.limit(QuotaKind::Fetch, "u", "x").unwrap();
        assert_eq!(sharers, Sharers { user: Some("u".into()), client_id: None });
    }

    #[test]
    fn addresses_have_a_limit_of_their_own_or_the_default() {
        let mut limits = QuotaLimits::default();
        let (one, other) = (IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 1]));
        limits.set(&[("ip", Some("127.0.0.2"))], "connection_creation_rate", 1.0);
        assert_eq!((limits.address_limit(one), limits.address_limit(other)), (Some(1.0), None));
        limits.set(&[("ip", None)], "connection_creation_rate", 9.0);
        limits.set(&[("ip", Some("no address"))], "connection_creation_rate", 1.0);
        assert_eq!((limits.address_limit(one), limits.address_limit(other)), (Some(1.0), Some(9.0)));
    }
}
