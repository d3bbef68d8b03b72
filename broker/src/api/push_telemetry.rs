//! PushTelemetry 0: a client's metrics (KIP-714).

use std::sync::Arc;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{PushTelemetryRequest, PushTelemetryResponse};

use super::get_telemetry_subscriptions::attributes;
use super::{Answer, Call, Client, Dispatcher};
use crate::telemetry::Push;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    client: &mut Client,
    call: Call,
    request: PushTelemetryRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let attributes = attributes(client, &call);
    let now_ms = context.grant.clock().monotonic_ms();
    // Decompression takes a while: not in front of the other connections' requests.
    call.waiting(async move {
        let pushed = tokio::task::spawn_blocking(move || {
            let push = Push {
                instance: request.client_instance_id,
                subscription_id: request.subscription_id,
                is_terminating: request.terminating,
                compression_type: request.compression_type,
            };
            let image = context.image.current();
            context.telemetry.push(&image, push, attributes, &request.metrics, now_ms)
        });
        let code = match pushed.await {
            Ok(outcome) => outcome.err().unwrap_or(ErrorCode::None),
            Err(error) => {
                tracing::error!(%error, "pushed metrics could not be taken");
                ErrorCode::UnknownServerError
            }
        };
        PushTelemetryResponse { error_code: code.code(), ..Default::default() }
    })
}
