//! Quotas: how fast clients may write, read, ask, change metadata and connect (KIP-13, KIP-55, KIP-124, KIP-599, KIP-612).
//!
//! A client above its limit is answered at once, told how long it should be quiet, and not read before (KIP-219).
//!
//! | module | holds |
//! |---|---|
//! | [`rate`] | the measures, pure |
//! | [`limits`] | whose limit counts |
//! | `request` | charging a request for the time that its handler took |
//! | `throttle` | where an encoded answer says the throttle time |
//!
//! [`Quotas`] puts them together: what clients did lately, against what they may.

pub mod limits;
pub mod rate;
mod request;
mod throttle;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::security::Principal;
pub use limits::{QuotaKind, QuotaLimits, Sharers};
use rate::{Rate, TokenBucket, Windows};
pub(crate) use request::RequestCharge;
pub(crate) use throttle::tell;

/// Measures that are kept. Client ids are made up by clients: when all are in use, further ones share one measure.
const MEASURES_MAX: usize = 100_000;
/// What is remembered of a debt, as a multiple of the burst: one request far above the limit keeps those who share it quiet for no
/// longer than that, by default a minute.
const DEBT_MAX: f64 = 6.0;
/// Likewise of time and connections, whose pauses are short.
const SHORT_DEBT_MAX: f64 = 1.0;
/// Measures of addresses that are kept; when all are in use, further addresses share one.
const ADDRESSES_MAX: usize = 100_000;

/// The windows of a node's quotas.
#[derive(Debug, Clone, Copy, Default)]
pub struct QuotaWindows {
    /// `quota.window.num` and `quota.window.size.seconds`.
    pub client: Windows,
    /// `controller.quota.window.num` and `controller.quota.window.size.seconds`.
    pub controller: Windows,
}

type Measures<M> = Mutex<HashMap<(QuotaKind, Sharers), M>>;

/// Measures what clients do and says how long they must be quiet.
pub struct Quotas {
    limits: ArcSwap<QuotaLimits>,
    windows: QuotaWindows,
    rates: Measures<Rate>,
    buckets: Measures<TokenBucket>,
    addresses: Mutex<HashMap<Option<IpAddr>, Rate>>,
    started: Instant,
}

impl Quotas {
    /// Without limits.
    pub fn new(windows: QuotaWindows) -> Arc<Self> {
        Arc::new(Self {
            limits: ArcSwap::default(),
            windows,
            rates: Mutex::default(),
            buckets: Mutex::default(),
            addresses: Mutex::default(),
            started: Instant::now(),
        })
    }

    /// Replaces the limits. What was measured stays, but for those who have no limit any more: should they get one again, they
    /// begin anew.
    pub fn publish(&self, limits: QuotaLimits) {
        let limits = Arc::new(limits);
        self.limits.store(Arc::clone(&limits));
        self.rates.lock().retain(|(kind, sharers), _| limits.is_limit_of(*kind, sharers));
        self.buckets.lock().retain(|(kind, sharers), _| limits.is_limit_of(*kind, sharers));
        let is_limited = |address: &IpAddr| limits.address_limit(*address).is_some();
        self.addresses.lock().retain(|address, _| address.as_ref().is_none_or(is_limited));
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts bytes that a client has sent, or was sent; gives the time in milliseconds that it must be quiet, mostly 0.
    pub fn count_bytes(&self, kind: QuotaKind, principal: &Principal, client_id: &str, bytes: u64) -> i32 {
        self.with_rate(kind, principal, client_id, |rate, limit, now_ms, windows| {
            rate.charge(bytes as f64, limit, now_ms, windows, DEBT_MAX)
        })
    }

    /// As [`Self::count_bytes`], before they are sent: with a time they are not counted, and must not be sent.
    pub fn try_count_bytes(
        &self,
        kind: QuotaKind,
        principal: &Principal,
        client_id: &str,
        bytes: u64,
    ) -> i32 {
        self.with_rate(kind, principal, client_id, |rate, limit, now_ms, windows| {
            rate.try_charge(bytes as f64, limit, now_ms, windows)
        })
    }

    /// Whether a client has a limit of a kind.
    pub fn is_limited(&self, kind: QuotaKind, principal: &Principal, client_id: &str) -> bool {
        self.limits.load().limit(kind, &principal.name, client_id).is_some()
    }

    /// The most bytes that one answer may carry to a client, so that it does not have to wait for longer than the windows.
    pub fn burst_bytes(&self, kind: QuotaKind, principal: &Principal, client_id: &str) -> usize {
        match self.limits.load().limit(kind, &principal.name, client_id) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "casts of floats saturate"
            )]
            Some((limit, _)) => self.windows.client.burst(limit) as usize,
            None => usize::MAX,
        }
    }

    /// Counts the time that a request took; the pause is at most a window long (KIP-124).
    pub fn count_time(&self, principal: &Principal, client_id: &str, took: Duration) -> i32 {
        let percent_seconds = took.as_secs_f64() * 100.0;
        let throttle_time_ms =
            self.with_rate(QuotaKind::Request, principal, client_id, |rate, limit, now_ms, windows| {
                rate.charge(percent_seconds, limit, now_ms, windows, SHORT_DEBT_MAX)
            });
        throttle_time_ms.min(i32::try_from(self.windows.client.length_ms).unwrap_or(i32::MAX))
    }

    /// Charges the measure of a client who has a limit: it is given with the limit, the time and the windows.
    fn with_rate(
        &self,
        kind: QuotaKind,
        principal: &Principal,
        client_id: &str,
        charge: impl FnOnce(&mut Rate, f64, u64, Windows) -> i32,
    ) -> i32 {
        let limits = self.limits.load();
        let Some((limit, sharers)) = limits.limit(kind, &principal.name, client_id) else { return 0 };
        let (now_ms, windows) = (self.now_ms(), self.windows.client);
        let mut rates = self.rates.lock();
        let is_idle = |rate: &Rate| now_ms.saturating_sub(rate.last_ms()) >= windows.memory_ms();
        let rate = entry(&mut rates, (kind, sharers), MEASURES_MAX, (kind, Sharers::default()), is_idle);
        charge(rate, limit, now_ms, windows)
    }

    /// Begins counting the partitions that a request makes or removes.
    pub fn mutations(self: &Arc<Self>, principal: &Principal, client_id: &str, strict: bool) -> Mutations {
        let limits = self.limits.load();
        let limit = limits.limit(QuotaKind::ControllerMutation, &principal.name, client_id);
        Mutations { quotas: Arc::clone(self), limit, strict, throttle_time_ms: 0 }
    }

    /// Counts a new connection of an address; `false`: it is one too many.
    pub fn admits_connection(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let Some(limit) = self.limits.load().address_limit(address) else { return true };
        let (now_ms, windows) = (self.now_ms(), self.windows.client);
        let mut addresses = self.addresses.lock();
        let is_idle = |rate: &Rate| now_ms.saturating_sub(rate.last_ms()) >= windows.memory_ms();
        let rate = entry(&mut addresses, Some(address), ADDRESSES_MAX, None, is_idle);
        // One that is not served does not make the next wait longer.
        rate.try_charge(1.0, limit, now_ms, windows) == 0
    }
}

/// The measure of a key. When there are too many, idle ones go; when none is idle, the shared one is used.
fn entry<K: Eq + std::hash::Hash, M: Default>(
    measures: &mut HashMap<K, M>,
    key: K,
    max: usize,
    shared: K,
    is_idle: impl Fn(&M) -> bool,
) -> &mut M {
    if measures.len() >= max && !measures.contains_key(&key) {
        measures.retain(|_, measure| !is_idle(measure));
        if measures.len() >= max {
            return measures.entry(shared).or_default();
        }
    }
    measures.entry(key).or_default()
}

/// The changes of one request to the metadata, in partitions (KIP-599).
pub struct Mutations {
    quotas: Arc<Quotas>,
    limit: Option<(f64, Sharers)>,
    /// The client's version of the request knows THROTTLING_QUOTA_EXCEEDED; an older one is only slowed down.
    strict: bool,
    throttle_time_ms: i32,
}

impl Mutations {
    /// Counts one change; `false`: it must be refused with THROTTLING_QUOTA_EXCEEDED.
    pub fn try_take(&mut self, partitions: u32) -> bool {
        let Some((limit, sharers)) = &self.limit else { return true };
        let (now_ms, windows) = (self.quotas.now_ms(), self.quotas.windows.controller);
        let mut buckets = self.quotas.buckets.lock();
        let is_idle = |bucket: &TokenBucket| now_ms.saturating_sub(bucket.last_ms()) >= windows.memory_ms();
        let kind = QuotaKind::ControllerMutation;
        let key = (kind, sharers.clone());
        let bucket = entry(&mut buckets, key, MEASURES_MAX, (kind, Sharers::default()), is_idle);
        if self.strict {
            self.throttle_time_ms = bucket.throttle_time_ms(*limit, now_ms, windows);
            if self.throttle_time_ms > 0 {
                return false;
            }
        }
        bucket.take(f64::from(partitions), *limit, now_ms, windows);
        if !self.strict {
            self.throttle_time_ms = bucket.throttle_time_ms(*limit, now_ms, windows);
        }
        true
    }

    /// What the answer says and the connection keeps, in milliseconds.
    pub fn throttle_time_ms(&self) -> i32 {
        self.throttle_time_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(entity: &[(&str, Option<&str>)], key: &str, limit: f64) -> Arc<Quotas> {
        let quotas = Quotas::new(QuotaWindows::default());
        let mut limits = QuotaLimits::default();
        limits.set(entity, key, limit);
        quotas.publish(limits);
        quotas
    }

    #[test]
    fn a_user_shares_its_limit_and_others_have_none() {
        let quotas = limited(&[("user", Some("u"))], "producer_byte_rate", 10_000.0);
        let (u, v) = (Principal::user("u"), Principal::user("v"));
        assert_eq!(quotas.count_bytes(QuotaKind::Produce, &u, "a", 60_000), 0);
        assert!(quotas.count_bytes(QuotaKind::Produce, &u, "b", 60_000) > 0);
        assert_eq!(quotas.count_bytes(QuotaKind::Produce, &v, "b", 600_000), 0);
        assert_eq!(quotas.count_bytes(QuotaKind::Fetch, &u, "b", 600_000), 0);
        assert_eq!(quotas.burst_bytes(QuotaKind::Produce, &u, "a"), 100_000);
        assert_eq!(quotas.burst_bytes(QuotaKind::Fetch, &u, "a"), usize::MAX);
        // A limit that is raised lets go at once.
        let mut limits = QuotaLimits::default();
        limits.set(&[("user", Some("u"))], "producer_byte_rate", 1e9);
        quotas.publish(limits);
        assert_eq!(quotas.count_bytes(QuotaKind::Produce, &u, "b", 1), 0);
    }

    #[test]
    fn what_is_not_sent_is_not_counted() {
        let quotas = limited(&[("client-id", Some("c"))], "consumer_byte_rate", 10_000.0);
        let u = Principal::user("u");
        let ask = |bytes| quotas.try_count_bytes(QuotaKind::Fetch, &u, "c", bytes);
        assert_eq!(ask(60_000), 0);
        assert!((0..100).all(|_| ask(60_000) > 0));
        assert_eq!(ask(39_000), 0);
    }

    #[test]
    fn a_limit_that_is_taken_away_takes_its_debts_along() {
        let quotas = limited(&[("user", None)], "producer_byte_rate", 10.0);
        let u = Principal::user("u");
        let produce = || quotas.count_bytes(QuotaKind::Produce, &u, "c", 100_000);
        assert!(produce() > 0);
        let limits = |entity: &[(&str, Option<&str>)], limit| {
            let mut limits = QuotaLimits::default();
            limits.set(entity, "producer_byte_rate", limit);
            quotas.publish(limits);
        };
        // The same user's by another name: what was counted stays.
        limits(&[("user", Some("u"))], 10_000.0);
        assert!(produce() > 0);
        limits(&[("user", Some("v"))], 10_000.0);
        assert_eq!(produce(), 0);
        limits(&[("user", Some("u"))], 10_000.0);
        assert_eq!(produce(), 0);
    }

    #[test]
    fn time_is_limited_and_the_pause_short() {
        let quotas = limited(&[("client-id", Some("c"))], "request_percentage", 1.0);
        let u = Principal::user("u");
        assert_eq!(quotas.count_time(&u, "c", Duration::from_millis(50)), 0);
        assert_eq!(quotas.count_time(&u, "c", Duration::from_secs(60)), 1_000);
        assert_eq!(quotas.count_time(&u, "d", Duration::from_secs(60)), 0);
    }

    #[test]
    fn new_clients_are_refused_and_old_ones_slowed_down() {
        let quotas = limited(&[("client-id", Some("c"))], "controller_mutation_rate", 1.0);
        let u = Principal::user("u");
        let mut first = quotas.mutations(&u, "c", true);
        assert!(first.try_take(30) && first.throttle_time_ms() == 0);
        let mut second = quotas.mutations(&u, "c", true);
        assert!(!second.try_take(1) && second.throttle_time_ms() > 0);
        let mut old = quotas.mutations(&u, "c", false);
        assert!(old.try_take(1) && old.throttle_time_ms() > 0);
        assert!(quotas.mutations(&u, "other", true).try_take(1_000));
    }

    #[test]
    fn connections_above_the_rate_are_not_admitted() {
        let quotas = limited(&[("ip", Some("127.0.0.2"))], "connection_creation_rate", 1.0);
        let (one, other) = (IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 1]));
        let admitted = (0..25).filter(|_| quotas.admits_connection(one)).count();
        assert!((9..=11).contains(&admitted), "{admitted}");
        assert!((0..25).all(|_| quotas.admits_connection(other)));
    }

    #[test]
    fn made_up_client_ids_do_not_fill_the_memory() {
        let mut measures = HashMap::new();
        for at in 0..100 {
            *entry(&mut measures, at, 10, -1, |_: &u32| false) += 1;
        }
        assert_eq!((measures.len(), measures[&-1]), (11, 90));
        *entry(&mut measures, 100, 10, -1, |_| true) += 1;
        assert_eq!(measures.len(), 1);
    }
}
