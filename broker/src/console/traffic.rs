//! `GET /traffic`: what every broker did a second over the last minutes. Brokers sample themselves; one that does not answer is named.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use futures_util::future::join_all;
use ottla_proto::admin as proto;
use ottla_proto::admin::admin_client::AdminClient;
use serde_json::{Value, json};

use super::Console;
use super::answer::{Answer, Json};
use super::login::Caller;
use crate::api::authorization::Operation;
use crate::metrics::STEP_MS;

/// A broker that does not answer within this time is left out: the next look is two seconds away.
const PATIENCE: Duration = Duration::from_secs(1);

/// The handler.
pub(super) async fn traffic(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    caller.access(&console).cluster(Operation::Describe).map_err(super::answer::ApiError::plain)?;
    let admin = &console.admin;
    let image = admin.image.current();
    let asked = image.brokers().filter(|broker| !broker.fenced).map(|broker| async move {
        if broker.id.0 == admin.node_id {
            return (broker.id.0, Some(admin.traffic.samples()));
        }
        let ask = async {
            let mut client = AdminClient::new(admin.controller.channel(&broker.grpc_endpoint).ok()?);
            let reply = client.describe_traffic(proto::DescribeTrafficRequest {}).await.ok()?;
            Some(reply.into_inner().samples)
        };
        (broker.id.0, tokio::time::timeout(PATIENCE, ask).await.ok().flatten())
    });
    let answers = join_all(asked).await;
    let silent: Vec<i32> =
        answers.iter().filter(|(_, samples)| samples.is_none()).map(|(id, _)| *id).collect();
    let nodes: Vec<Value> = answers
        .iter()
        .filter_map(|(id, samples)| samples.as_ref().map(|samples| columns(*id, samples)))
        .collect();
    Ok(Json(json!({ "step_ms": STEP_MS, "nodes": nodes, "silent": silent })))
}

/// One array a value: half the bytes of one object a sample.
fn columns(id: i32, samples: &[proto::TrafficSample]) -> Value {
    let column = |value: fn(&proto::TrafficSample) -> f64| -> Vec<f64> {
        samples.iter().map(|sample| (value(sample) * 10.0).round() / 10.0).collect()
    };
    json!({
        "id": id,
        "at_ms": samples.iter().map(|sample| sample.at_ms).collect::<Vec<_>>(),
        "produced_bytes": column(|sample| sample.produced_bytes),
        "produced_records": column(|sample| sample.produced_records),
        "fetched_bytes": column(|sample| sample.fetched_bytes),
        "replicated_bytes": column(|sample| sample.replicated_bytes),
        "requests": column(|sample| sample.requests),
        "connections": samples.last().map(|sample| sample.connections),
    })
}
