//! How many connections a node accepts, in all and from one address (`max.connections`, `max.connections.per.ip`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Why a connection was closed before its first byte was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionRefusal {
    /// `max.connections` is reached.
    #[error("the node already has {0} connections (max.connections)")]
    Node(usize),
    /// `max.connections.per.ip` is reached.
    #[error("the address already has {0} connections (max.connections.per.ip)")]
    Address(usize),
}

/// Counts open connections and admits new ones under the limits.
#[derive(Debug)]
pub struct ConnectionLimits {
    node_max: usize,
    address_max: usize,
    address_max_overrides: HashMap<IpAddr, usize>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One admitted connection; dropping it makes room for another.
#[derive(Debug)]
pub struct Admission {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
}

impl ConnectionLimits {
    /// `address_max_overrides` are the limits of single addresses (`max.connections.per.ip.overrides`).
    pub fn new(
        node_max: usize,
        address_max: usize,
        address_max_overrides: HashMap<IpAddr, usize>,
    ) -> Arc<Self> {
        Arc::new(Self { node_max, address_max, address_max_overrides, open: Mutex::default() })
    }

    /// Counts a new connection, or says which limit it would break.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admission, ConnectionRefusal> {
        let address = address.to_canonical();
        let address_max = self.address_max_overrides.get(&address).copied().unwrap_or(self.address_max);
        let mut open = self.open.lock();
        if open.all >= self.node_max {
            return Err(ConnectionRefusal::Node(open.all));
        }
        let count = open.by_address.entry(address).or_default();
        if *count >= address_max {
            return Err(ConnectionRefusal::Address(*count));
        }
        *count += 1;
        open.all += 1;
        Ok(Admission { limits: Arc::clone(self), address })
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

    #[test]
    fn the_limit_of_one_address_leaves_room_for_others_and_recovers() {
        let limits = ConnectionLimits::new(10, 2, HashMap::new());
        let here = IpAddr::from([127, 0, 0, 1]);
        let there = IpAddr::from([127, 0, 0, 2]);
        let first = limits.admit(here).unwrap();
        let _second = limits.admit(here).unwrap();
        assert_eq!(limits.admit(here).unwrap_err(), ConnectionRefusal::Address(2));
        assert!(limits.admit(there).is_ok());
        drop(first);
        assert!(limits.admit(here).is_ok());
    }

    #[test]
    fn the_limit_of_the_node_counts_every_address() {
        let limits = ConnectionLimits::new(1, 9, HashMap::new());
        let _one = limits.admit(IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!(limits.admit(IpAddr::from([127, 0, 0, 2])).unwrap_err(), ConnectionRefusal::Node(1));
        assert_eq!(limits.open(), 1);
    }

    #[test]
    fn an_address_of_its_own_limit_is_judged_by_that() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let limits = ConnectionLimits::new(9, 9, HashMap::from([(here, 0)]));
        assert_eq!(limits.admit(here).unwrap_err(), ConnectionRefusal::Address(0));
    }
}
