//! IncrementalAlterConfigs 0-1: set, delete, append and subtract single settings.

use std::sync::Arc;
use std::time::Duration;

use ottla_proto::controller as proto;
use ottla_proto::metadata::ResourceType;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::incremental_alter_configs_request::Resource;
use ottla_wire::messages::incremental_alter_configs_response::Response as Altered;
use ottla_wire::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use ottla_wire::text::Text;

use super::forward::{refusal_of, wait_for_index};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// The request names no timeout; this is the broker's `request.timeout.ms`.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: IncrementalAlterConfigsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    call.exclusive(async move { alter(&context, request).await })
}

async fn alter(
    context: &BrokerContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let refuse_all = |code: ErrorCode, message: &str| {
        request
            .resources
            .iter()
            .map(|resource| Altered {
                error_code: code.code(),
                error_message: Some(message.into()),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
            })
            .collect()
    };
    let command = proto::AlterConfigs {
        validate_only: request.validate_only,
        replace_all: false,
        resources: request.resources.iter().map(to_command).collect(),
    };
    let reply =
        context.controller.submit_within(proto::command::Command::AlterConfigs(command), PATIENCE).await;
    let responses = match reply {
        Err(error) => refuse_all(ErrorCode::RequestTimedOut, &error.to_string()),
        Ok(reply) => match (refusal_of(&reply), reply.reply) {
            (Err((code, message)), _) => refuse_all(code, &message),
            (Ok(()), Some(proto::command_reply::Reply::AlterConfigs(altered))) => {
                wait_for_index(context, reply.index, PATIENCE).await;
                // The controller answers in the order asked; the type is the client's own number.
                altered.resources.into_iter().zip(&request.resources).map(to_answer).collect()
            }
            _ => refuse_all(ErrorCode::UnknownServerError, "the controller answered another question"),
        },
    };
    IncrementalAlterConfigsResponse { responses, ..Default::default() }
}

fn to_command(resource: &Resource) -> proto::ConfigAlteration {
    proto::ConfigAlteration {
        // An unknown number is refused by the controller.
        resource_type: ResourceType::try_from(i32::from(resource.resource_type))
            .unwrap_or(ResourceType::Unspecified)
            .into(),
        resource_name: resource.resource_name.to_string(),
        changes: resource
            .configs
            .iter()
            .map(|config| proto::ConfigChange {
                name: config.name.to_string(),
                operation: i32::from(config.config_operation),
                value: config.value.as_ref().map(ToString::to_string),
            })
            .collect(),
    }
}

fn to_answer((altered, asked): (proto::AlteredConfig, &Resource)) -> Altered {
    Altered {
        error_code: i16::try_from(altered.error_code).unwrap_or(-1),
        error_message: (altered.error_code != 0).then(|| Text::from(altered.message)),
        resource_type: asked.resource_type,
        resource_name: asked.resource_name.clone(),
    }
}
