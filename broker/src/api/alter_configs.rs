//! AlterConfigs 0-2: gives a resource new settings in place of all that it has. Clients since Kafka 2.3 change single ones.

use ottla_wire::messages::alter_configs_response::Response;
use ottla_wire::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::config_changes::{Alteration, Altered, Change, Mode, alter_and_answer};
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: AlterConfigsRequest,
) -> Answer {
    let mode = Mode { validate_only: request.validate_only, replace_all: true };
    let alterations = request.resources.into_iter().map(|resource| Alteration {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        changes: resource.configs.into_iter().map(|config| Change::set(config.name, config.value)).collect(),
    });
    alter_and_answer(dispatcher, call, alterations.collect(), mode, |altered| AlterConfigsResponse {
        responses: altered.map(to_response).collect(),
        ..Default::default()
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
