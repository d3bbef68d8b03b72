//! How many connections a node accepts, in all and from one address (`max.connections`, `max.connections.per.ip`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::quotas::Quotas;
use crate::quotas::rate::{Rate, Windows};
use crate::replica::Counter;

/// What is remembered of connections above the rate, as a multiple of the burst.
const DEBT_MAX: f64 = 1.0;

/// Why a connection was closed before its first byte was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionRefusal {
    /// `max.connections` is reached.
    #[error("the node already has {0} connections (max.connections)")]
    Node(usize),
    /// `listener.name.<name>.max.connections` is reached.
    #[error("the listener already has {0} connections (max.connections)")]
    Listener(usize),
    /// The quota `connection_creation_rate` of the address is passed.
    #[error("the address connects too often (connection_creation_rate)")]
    Rate,
    /// `max.connections.per.ip` is reached.
    #[error("the address already has {0} connections (max.connections.per.ip)")]
    Address(usize),
}

/// How many connections there may be.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMaxima {
    /// `max.connections`.
    pub node: usize,
    /// `listener.name.<name>.max.connections`, by the listener's name.
    pub listeners: HashMap<String, usize>,
    /// Brokers reach each other by it: the limits of the whole node do not hold there, or clients could cut brokers off
    /// (KIP-402). `None`: clients use the same listener.
    pub protected_listener: Option<String>,
    /// `max.connections.per.ip`.
    pub address: usize,
    /// `max.connections.per.ip.overrides`.
    pub address_overrides: HashMap<IpAddr, usize>,
}

/// How many new connections a second are accepted; further ones wait in the kernel's queue.
#[derive(Debug, Clone, Default)]
pub struct ConnectionRates {
    /// `max.connection.creation.rate`; `None`: any number.
    pub node: Option<f64>,
    /// `listener.name.<name>.max.connection.creation.rate`, by the listener's name.
    pub listeners: HashMap<String, f64>,
}

/// Counts open connections and admits new ones under the limits.
pub struct ConnectionLimits {
    maxima: ArcSwap<ConnectionMaxima>,
    rates: ArcSwap<ConnectionRates>,
    quotas: Arc<Quotas>,
    windows: Windows,
    open: Mutex<Open>,
    /// New connections lately, by listener; of all together under the empty name.
    created: Mutex<HashMap<String, Rate>>,
    started: Instant,
    admitted: Counter,
    refused: Counter,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
    by_listener: HashMap<Arc<str>, usize>,
}

/// One admitted connection; dropping it makes room for another.
pub struct Admission {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
    listener: Arc<str>,
}

impl ConnectionLimits {
    /// `quotas` limit how fast single addresses may connect; `windows` are those of the rates.
    pub fn new(
        maxima: ConnectionMaxima,
        rates: ConnectionRates,
        quotas: Arc<Quotas>,
        windows: Windows,
    ) -> Arc<Self> {
        Arc::new(Self {
            maxima: ArcSwap::from_pointee(maxima),
            rates: ArcSwap::from_pointee(rates),
            quotas,
            windows,
            open: Mutex::default(),
            created: Mutex::default(),
            started: Instant::now(),
            admitted: Counter::default(),
            refused: Counter::default(),
        })
    }

    /// New limits, for connections to come: those that are open stay.
    pub(crate) fn change(&self, maxima: ConnectionMaxima, rates: ConnectionRates) {
        self.maxima.store(Arc::new(maxima));
        self.rates.store(Arc::new(rates));
    }

    /// Counts a new connection, or says which limit it would break.
    pub fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        listener: &Arc<str>,
    ) -> Result<Admission, ConnectionRefusal> {
        let admission = self.try_admit(address, listener);
        if admission.is_ok() { &self.admitted } else { &self.refused }.add(1);
        admission
    }

    fn try_admit(
        self: &Arc<Self>,
        address: IpAddr,
        listener: &Arc<str>,
    ) -> Result<Admission, ConnectionRefusal> {
        let address = address.to_canonical();
        if !self.quotas.admits_connection(address) {
            return Err(ConnectionRefusal::Rate);
        }
        let maxima = self.maxima.load();
        let address_max = maxima.address_overrides.get(&address).copied().unwrap_or(maxima.address);
        let listener_max = maxima.listeners.get(&**listener).copied().unwrap_or(usize::MAX);
        let mut open = self.open.lock();
        if open.all >= maxima.node && !self.is_protected(listener) {
            return Err(ConnectionRefusal::Node(open.all));
        }
        let of_listener = open.by_listener.get(listener).copied().unwrap_or(0);
        if of_listener >= listener_max {
            return Err(ConnectionRefusal::Listener(of_listener));
        }
        let count = open.by_address.entry(address).or_default();
        if *count >= address_max {
            let count = *count;
            return Err(ConnectionRefusal::Address(count));
        }
        *count += 1;
        open.all += 1;
        *open.by_listener.entry(Arc::clone(listener)).or_default() += 1;
        Ok(Admission { limits: Arc::clone(self), address, listener: Arc::clone(listener) })
    }

    fn is_protected(&self, listener: &str) -> bool {
        self.maxima.load().protected_listener.as_deref() == Some(listener)
    }

    /// Counts an accepted connection; gives the time that accepting should pause for (`max.connection.creation.rate`).
    pub fn pause(&self, listener: &str) -> Duration {
        let rates = self.rates.load();
        let of_node = rates.node.filter(|_| !self.is_protected(listener));
        let limits = [(listener, rates.listeners.get(listener).copied()), ("", of_node)];
        if limits.iter().all(|(_, limit)| limit.is_none()) {
            return Duration::ZERO;
        }
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut created = self.created.lock();
        let pause_ms = limits.into_iter().filter_map(|(name, limit)| {
            let limit = limit?;
            let rate = created.entry(name.to_owned()).or_default();
            u64::try_from(rate.charge(1.0, limit, now_ms, self.windows, DEBT_MAX)).ok()
        });
        // Longer than a window is not needed: the next connection is counted again.
        Duration::from_millis(pause_ms.max().unwrap_or(0).min(self.windows.length_ms))
    }

    /// Connections so far: admitted, refused.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.admitted.get(), self.refused.get())
    }

    /// Connections open now, by listener.
    pub(crate) fn open_by_listener(&self) -> HashMap<Arc<str>, usize> {
        self.open.lock().by_listener.clone()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.lock().all
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock();
        open.all = open.all.saturating_sub(1);
        if let Some(count) = open.by_listener.get_mut(&self.listener) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quotas::{QuotaLimits, QuotaWindows};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

    fn limits(maxima: ConnectionMaxima) -> Arc<ConnectionLimits> {
        let quotas = Quotas::new(QuotaWindows::default());
        ConnectionLimits::new(maxima, ConnectionRates::default(), quotas, Windows::default())
    }

    fn listener() -> Arc<str> {
        "A".into()
    }

    #[test]
    fn the_limit_of_one_address_leaves_room_for_others_and_recovers() {
        let limits = limits(ConnectionMaxima { node: 10, address: 2, ..Default::default() });
        let first = limits.admit(HERE, &listener()).unwrap();
        let _second = limits.admit(HERE, &listener()).unwrap();
        assert_eq!(limits.admit(HERE, &listener()).err(), Some(ConnectionRefusal::Address(2)));
        assert!(limits.admit(THERE, &listener()).is_ok());
        drop(first);
        assert!(limits.admit(HERE, &listener()).is_ok());
    }

    #[test]
    fn the_limit_of_the_node_counts_every_address() {
        let limits = limits(ConnectionMaxima { node: 1, address: 9, ..Default::default() });
        let _one = limits.admit(HERE, &listener()).unwrap();
        assert_eq!(limits.admit(THERE, &listener()).err(), Some(ConnectionRefusal::Node(1)));
        assert_eq!(limits.open(), 1);
    }

    #[test]
    fn the_limit_of_the_node_does_not_cut_brokers_off() {
        let protected_listener = Some("B".to_owned());
        let maxima = ConnectionMaxima { node: 1, address: 9, protected_listener, ..Default::default() };
        let limits = limits(maxima);
        let _one = limits.admit(HERE, &listener()).unwrap();
        assert!(limits.admit(HERE, &"B".into()).is_ok());
        assert!(limits.admit(HERE, &listener()).is_err());
    }

    #[test]
    fn addresses_and_listeners_of_their_own_limits_are_judged_by_them() {
        let limits = limits(ConnectionMaxima {
            node: 9,
            address: 9,
            address_overrides: HashMap::from([(HERE, 0)]),
            listeners: HashMap::from([("A".to_owned(), 1)]),
            ..Default::default()
        });
        assert_eq!(limits.admit(HERE, &listener()).err(), Some(ConnectionRefusal::Address(0)));
        let one = limits.admit(THERE, &listener()).unwrap();
        assert_eq!(limits.admit(THERE, &listener()).err(), Some(ConnectionRefusal::Listener(1)));
        assert!(limits.admit(THERE, &"B".into()).is_ok());
        drop(one);
        assert!(limits.admit(THERE, &listener()).is_ok());
    }

    #[test]
    fn an_address_that_connects_too_often_is_refused() {
        let quotas = Quotas::new(QuotaWindows::default());
        let mut addresses = QuotaLimits::default();
        addresses.set(&[("ip", Some("127.0.0.2"))], "connection_creation_rate", 1.0);
        quotas.publish(addresses);
        let maxima = ConnectionMaxima { node: 1_000, address: 1_000, ..Default::default() };
        let limits = ConnectionLimits::new(maxima, ConnectionRates::default(), quotas, Windows::default());
        let refused = |address| (0..25).filter(|_| limits.admit(address, &listener()).is_err()).count();
        assert!((14..=16).contains(&refused(THERE)));
        assert_eq!(refused(HERE), 0);
    }

    #[test]
    fn accepting_pauses_above_the_rate() {
        let quotas = Quotas::new(QuotaWindows::default());
        let rates = ConnectionRates { node: Some(10.0), ..Default::default() };
        let limits = ConnectionLimits::new(ConnectionMaxima::default(), rates, quotas, Windows::default());
        assert!((0..90).all(|_| limits.pause("A").is_zero()));
        assert!((0..20).any(|_| !limits.pause("A").is_zero()));
    }
}
