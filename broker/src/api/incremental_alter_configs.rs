//! IncrementalAlterConfigs 0-1: set, delete, append and subtract single settings (KIP-339).

use ottla_wire::messages::incremental_alter_configs_response::Response;
use ottla_wire::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::config_changes::{Alteration, Altered, Change, Mode, alter_and_answer};
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: IncrementalAlterConfigsRequest,
) -> Answer {
    let mode = Mode { validate_only: request.validate_only, replace_all: false };
    let alterations = request.resources.into_iter().map(|resource| Alteration {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        changes: resource
            .configs
            .into_iter()
            .map(|config| Change {
                name: config.name,
                operation: config.config_operation,
                value: config.value,
            })
            .collect(),
    });
    alter_and_answer(dispatcher, call, alterations.collect(), mode, |altered| {
        IncrementalAlterConfigsResponse {
            responses: altered.map(to_response).collect(),
            ..Default::default()
        }
    })
}

fn to_response(altered: Altered) -> Response {
    Response {
        error_code: altered.error_code,
        error_message: altered.error_message,
        resource_type: altered.resource_type,
        resource_name: altered.resource_name,
    }
}
