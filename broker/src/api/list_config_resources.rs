//! ListConfigResources 0-1: what has configs (KIP-1142). Version 0 was ListClientMetricsResources and knows only those.

use ottla_metadata::config;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::list_config_resources_response::ConfigResource;
use ottla_wire::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use ottla_wire::text::Text;

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};

/// From this version on the kinds are asked for.
const KINDS_FROM: i16 = 1;
/// Number of subscriptions to the metrics of clients.
const CLIENT_METRICS: i8 = 16;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ListConfigResourcesRequest,
) -> Answer {
    let kinds = if call.version < KINDS_FROM { vec![CLIENT_METRICS] } else { request.resource_types };
    if let Err(code) = dispatcher.context.access(&call).cluster(Operation::DescribeConfigs) {
        return call.ready(&ListConfigResourcesResponse { error_code: code.code(), ..Default::default() });
    }
    let image = dispatcher.context.image.current();
    let mut response = ListConfigResourcesResponse::default();
    match config::list_config_resources(&image, &kinds) {
        Some(found) => {
            response.config_resources = found
                .into_iter()
                .map(|(resource_type, name)| ConfigResource {
                    resource_type,
                    resource_name: Text::from(name),
                })
                .collect();
        }
        None => response.error_code = ErrorCode::UnsupportedVersion.code(),
    }
    call.ready(&response)
}
