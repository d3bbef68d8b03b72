//! `request_percentage` (KIP-124): what a request costs is the time until its handler returned.

use std::sync::Arc;
use std::time::Instant;

use ottla_wire::api::ApiKey;
use ottla_wire::text::Text;

use super::throttle::tell;
use super::{QuotaKind, Quotas};
use crate::api::{Answer, Call, Client};
use crate::security::Principal;

/// A request of a client that has a limit; of all others there is none.
pub(crate) struct RequestCharge {
    quotas: Arc<Quotas>,
    principal: Arc<Principal>,
    client_id: Option<Text>,
    api_key: ApiKey,
    version: i16,
}

impl RequestCharge {
    /// Looks whether the client has a limit. Without any limits in the cluster this costs next to nothing.
    pub(crate) fn new(quotas: &Arc<Quotas>, client: &Client, call: &Call) -> Option<Self> {
        if !quotas.is_limited(QuotaKind::Request, &client.principal, call.client_name()) {
            return None;
        }
        Some(Self {
            quotas: Arc::clone(quotas),
            principal: Arc::clone(&client.principal),
            client_id: call.client_id.clone(),
            api_key: call.api_key,
            version: call.version,
        })
    }

    /// Counts the time since `started`; the answer tells the client to be quiet if that was too much. Brokers are let be.
    pub(crate) fn apply(charge: Option<Self>, client: &Client, started: Instant, answer: Answer) -> Answer {
        let Some(charge) = charge.filter(|_| !client.is_broker) else { return answer };
        let client_id = charge.client_id.as_deref().unwrap_or_default();
        let throttle_time_ms = charge.quotas.count_time(&charge.principal, client_id, started.elapsed());
        if throttle_time_ms == 0 {
            return answer;
        }
        let (key, version) = (charge.api_key, charge.version);
        match answer {
            Answer::Ready(response) => Answer::Ready(tell(response, key, version, throttle_time_ms)),
            Answer::Waiting(answer) => {
                Answer::Waiting(Box::pin(async move { tell(answer.await, key, version, throttle_time_ms) }))
            }
            Answer::Exclusive(answer) => {
                Answer::Exclusive(Box::pin(async move { tell(answer.await, key, version, throttle_time_ms) }))
            }
            other => other,
        }
    }
}
