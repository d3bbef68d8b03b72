//! GetTelemetrySubscriptions 0: which of its metrics a client is to push, and how often (KIP-714).

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse};
use ottla_wire::text::Text;

use super::{Answer, Call, Client, Dispatcher};
use crate::telemetry::{COMPRESSION_TYPES, ClientAttributes};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    client: &mut Client,
    call: Call,
    request: GetTelemetrySubscriptionsRequest,
) -> Answer {
    let context = &dispatcher.context;
    let telemetry = &context.telemetry;
    let image = context.image.current();
    let now_ms = context.grant.clock().monotonic_ms();
    let told = telemetry.subscribe(&image, request.client_instance_id, attributes(client, &call), now_ms);
    let mut response = GetTelemetrySubscriptionsResponse {
        client_instance_id: request.client_instance_id,
        ..Default::default()
    };
    match told {
        Ok(told) => {
            response.client_instance_id = told.instance;
            response.subscription_id = told.subscription_id;
            response.accepted_compression_types = COMPRESSION_TYPES.to_vec();
            response.push_interval_ms = told.interval_ms;
            response.telemetry_max_bytes = i32::try_from(telemetry.bytes_max()).unwrap_or(i32::MAX);
            response.delta_temporality = true;
            response.requested_metrics = told.metrics.into_iter().map(Text::from).collect();
        }
        Err(code) => response.error_code = ErrorCode::code(code),
    }
    call.ready(&response)
}

/// What subscriptions can select the client by.
pub(super) fn attributes(client: &Client, call: &Call) -> ClientAttributes {
    let (name, version) = client.software.as_ref().map_or(("", ""), |(name, version)| (&**name, &**version));
    ClientAttributes {
        client_id: call.client_name().to_owned(),
        software_name: name.to_owned(),
        software_version: version.to_owned(),
        source_address: client.host.to_string(),
        source_port: client.port,
    }
}
