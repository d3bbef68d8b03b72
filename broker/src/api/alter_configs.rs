//! AlterConfigs 0-2: gives a resource new settings in place of all that it has. Clients since Kafka 2.3 change single ones.

use std::sync::Arc;

use ottla_wire::messages::alter_configs_response::Response as Altered;
use ottla_wire::messages::{AlterConfigsRequest, AlterConfigsResponse};
use ottla_wire::text::Text;

use super::config_changes::{Alteration, Change, Mode, Outcome, alter};
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: AlterConfigsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let access = context.access(&call);
    let mode = Mode { validate_only: request.validate_only, replace_all: true };
    let alterations: Vec<Alteration> = request
        .resources
        .into_iter()
        .map(|resource| Alteration {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            changes: resource
                .configs
                .into_iter()
                .map(|config| Change::set(config.name, config.value))
                .collect(),
        })
        .collect();
    let by = Arc::clone(&call.principal);
    call.exclusive(async move {
        let outcomes = alter(&context, &access, &by, &alterations, mode).await;
        let responses = alterations.into_iter().zip(outcomes).map(to_answer).collect();
        AlterConfigsResponse { responses, ..Default::default() }
    })
}

fn to_answer((alteration, outcome): (Alteration, Outcome)) -> Altered {
    let mut answer = Altered {
        resource_type: alteration.resource_type,
        resource_name: alteration.resource_name,
        ..Default::default()
    };
    if let Err((code, message)) = outcome {
        answer.error_code = code.code();
        answer.error_message = Some(Text::from(message));
    }
    answer
}
