//! Metrics that clients push (KIP-714): who is asked for what, how often, and what came, for the metrics page.
//!
//! | module | holds |
//! |---|---|
//! | `subscriptions` | which clients a subscription is for |
//! | `received` | reading what is pushed, within bounds |
//!
//! Clients send what they like: how many are remembered, how often they may come and how much of one is kept is bounded.

mod received;
mod subscriptions;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use ottla_metadata::image::MetadataImage;
use ottla_wire::compression::{Codec, decompress};
use ottla_wire::error_code::ErrorCode;
use parking_lot::Mutex;
use uuid::Uuid;

use received::Series;
pub(crate) use subscriptions::ClientAttributes;
use subscriptions::{Subscription, Subscriptions};

/// Clients that are remembered; who has been silent longest is forgotten first.
const CLIENTS_MAX: usize = 2_000;
/// Clients that the metrics page shows.
const CLIENTS_SHOWN_MAX: usize = 200;
/// A client that has missed so many pushes is taken to be gone.
const MISSED_PUSHES_MAX: u64 = 3;
/// A push may grow by this factor when it is decompressed.
const DECOMPRESSION_FACTOR_MAX: usize = 16;
/// What clients may compress with, the best first: Zstandard, LZ4, gzip, Snappy.
pub(crate) const COMPRESSION_TYPES: [i8; 4] = [4, 3, 1, 2];

/// One client, by the id that it was given.
#[derive(Debug)]
struct Instance {
    attributes: ClientAttributes,
    subscription: Subscription,
    last_get_ms: Option<u64>,
    last_push_ms: Option<u64>,
    /// It may ask again at once after an error that asking mends.
    may_hurry: bool,
    is_terminating: bool,
    series: HashMap<String, Series>,
}

impl Instance {
    fn last_seen_ms(&self) -> u64 {
        self.last_get_ms.max(self.last_push_ms).unwrap_or(0)
    }

    fn interval_ms(&self) -> u64 {
        u64::try_from(self.subscription.interval_ms).unwrap_or(0)
    }

    fn has_waited(&self, since_ms: Option<u64>, now_ms: u64) -> bool {
        since_ms.is_none_or(|since_ms| now_ms.saturating_sub(since_ms) >= self.interval_ms())
    }
}

/// What a client is told to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) instance: Uuid,
    pub(crate) subscription_id: i32,
    pub(crate) interval_ms: i32,
    /// Prefixes of names; one empty prefix: all.
    pub(crate) metrics: Vec<String>,
}

/// One push, without its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Push {
    pub(crate) instance: Uuid,
    pub(crate) subscription_id: i32,
    pub(crate) is_terminating: bool,
    pub(crate) compression_type: i8,
}

/// The clients that push their metrics to this broker.
#[derive(Debug)]
pub(crate) struct Telemetry {
    /// `telemetry.max.bytes`.
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    subscriptions: Arc<Subscriptions>,
    instances: HashMap<Uuid, Instance>,
}

impl Telemetry {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    /// Bytes of one push, at most.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// GetTelemetrySubscriptions: what this client is to push. Nil asks for an id.
    pub(crate) fn subscribe(
        &self,
        image: &MetadataImage,
        instance: Uuid,
        attributes: ClientAttributes,
        now_ms: u64,
    ) -> Result<Told, ErrorCode> {
        let id = if instance.is_nil() { Uuid::new_v4() } else { instance };
        let mut state = self.state.lock();
        let instance = state.instance(image, id, attributes);
        let last_ms = instance.last_get_ms.max(instance.last_push_ms);
        if !instance.may_hurry && !instance.has_waited(last_ms, now_ms) {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        instance.last_get_ms = Some(now_ms);
        instance.may_hurry = false;
        Ok(Told {
            instance: id,
            subscription_id: instance.subscription.id,
            interval_ms: instance.subscription.interval_ms,
            metrics: instance.subscription.metrics.clone(),
        })
    }

    /// PushTelemetry.
    pub(crate) fn push(
        &self,
        image: &MetadataImage,
        push: Push,
        attributes: ClientAttributes,
        metrics: &Bytes,
        now_ms: u64,
    ) -> Result<(), ErrorCode> {
        if push.instance.is_nil() {
            return Err(ErrorCode::InvalidRequest);
        }
        self.admit(image, push, attributes, metrics.len(), now_ms)?;
        if metrics.is_empty() {
            return Ok(());
        }
        let limit = self.bytes_max.saturating_mul(DECOMPRESSION_FACTOR_MAX);
        let plain = match Codec::from_attributes(i16::from(push.compression_type)) {
            Ok(Codec::None) => metrics.clone(),
            Ok(codec) => decompress(codec, metrics, limit).map_err(|_| ErrorCode::InvalidRecord)?,
            Err(_) => return Err(ErrorCode::UnsupportedCompressionType),
        };
        let received = received::read(plain).map_err(|_| ErrorCode::InvalidRecord)?;
        let mut state = self.state.lock();
        if let Some(instance) = state.instances.get_mut(&push.instance) {
            received::merge(&mut instance.series, received);
        }
        Ok(())
    }

    fn admit(
        &self,
        image: &MetadataImage,
        push: Push,
        attributes: ClientAttributes,
        length: usize,
        now_ms: u64,
    ) -> Result<(), ErrorCode> {
        let mut state = self.state.lock();
        let instance = state.instance(image, push.instance, attributes);
        if instance.is_terminating {
            return Err(ErrorCode::InvalidRequest);
        }
        let is_answer = instance.last_get_ms.is_some() && instance.last_get_ms > instance.last_push_ms;
        let is_due = is_answer || instance.has_waited(instance.last_push_ms, now_ms);
        if is_due {
            instance.last_push_ms = Some(now_ms);
        } else if !push.is_terminating {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        if push.subscription_id != instance.subscription.id {
            instance.may_hurry = true;
            return Err(ErrorCode::UnknownSubscriptionId);
        }
        let is_known = push.compression_type == 0 || COMPRESSION_TYPES.contains(&push.compression_type);
        if !is_known {
            instance.may_hurry = true;
            return Err(ErrorCode::UnsupportedCompressionType);
        }
        if length > self.bytes_max {
            return Err(ErrorCode::TelemetryTooLarge);
        }
        instance.is_terminating = push.is_terminating;
        Ok(())
    }

    /// What came, as Prometheus reads it; of clients that are gone nothing.
    pub(crate) fn page(&self, now_ms: u64) -> String {
        let state = self.state.lock();
        let mut text = String::from(
            "# HELP ottla_client_metric Last value of a metric that a client pushed, by its own name.\n\
             # TYPE ottla_client_metric gauge\n",
        );
        let is_here = |one: &Instance| {
            let silent_ms = now_ms.saturating_sub(one.last_seen_ms());
            !one.is_terminating && silent_ms <= one.interval_ms().saturating_mul(MISSED_PUSHES_MAX)
        };
        let shown = state.instances.iter().filter(|(_, one)| is_here(one) && !one.series.is_empty());
        let mut shown: Vec<_> = shown.collect();
        shown.sort_by_key(|(id, one)| (std::cmp::Reverse(one.last_seen_ms()), **id));
        for (id, instance) in shown.into_iter().take(CLIENTS_SHOWN_MAX) {
            let client = received::escaped(&instance.attributes.client_id);
            for (labels, series) in &instance.series {
                // Writing to a text cannot fail.
                let _ = writeln!(
                    text,
                    "ottla_client_metric{{client_id=\"{client}\",client_instance_id=\"{id}\",{labels}}} {}",
                    series.value
                );
            }
        }
        text + "# EOF\n"
    }
}

impl State {
    /// The client as it is known, with the subscription that holds for it now.
    fn instance(&mut self, image: &MetadataImage, id: Uuid, attributes: ClientAttributes) -> &mut Instance {
        if let Some(new) = Subscriptions::changed(&self.subscriptions, image) {
            self.subscriptions = Arc::new(new);
        }
        if !self.instances.contains_key(&id) {
            self.make_room();
        }
        let subscription = self.subscriptions.of(id, &attributes);
        let instance = self.instances.entry(id).or_insert_with(|| Instance {
            attributes: attributes.clone(),
            subscription: subscription.clone(),
            last_get_ms: None,
            last_push_ms: None,
            may_hurry: false,
            is_terminating: false,
            series: HashMap::new(),
        });
        instance.attributes = attributes;
        instance.subscription = subscription;
        instance
    }

    fn make_room(&mut self) {
        if self.instances.len() < CLIENTS_MAX {
            return;
        }
        let oldest = self.instances.iter().min_by_key(|(_, one)| one.last_seen_ms()).map(|(id, _)| *id);
        if let Some(oldest) = oldest {
            self.instances.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
