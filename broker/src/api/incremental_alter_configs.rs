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

use super::authorization::{Operation, REFUSED};
use super::forward::{refusal_of, wait_for_index};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// The request names no timeout; this is the broker's `request.timeout.ms`.
const PATIENCE: Duration = Duration::from_secs(30);

/// Numbers of the operations that are looked at before the controller sees them.
const SET: i8 = 0;
const DELETE: i8 = 1;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: IncrementalAlterConfigsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let mut request = request;
    let refused = context.access(&call).take_refused(&mut request.resources, |access, resource| {
        access.config(Operation::AlterConfigs, resource.resource_type, &resource.resource_name)
    });
    call.exclusive(async move {
        let mut response = alter(&context, request).await;
        response.responses.extend(refused.into_iter().map(|(resource, code)| Altered {
            error_code: code.code(),
            error_message: Some(REFUSED.into()),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        }));
        response
    })
}

async fn alter(
    context: &Arc<BrokerContext>,
    mut request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut refused = Vec::new();
    for resource in std::mem::take(&mut request.resources) {
        match check_security(context, &resource).await {
            Ok(()) => request.resources.push(resource),
            Err(message) => refused.push(Altered {
                error_code: ErrorCode::InvalidConfig.code(),
                error_message: Some(message.into()),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
            }),
        }
    }
    let mut response = alter_checked(context, request).await;
    response.responses.extend(refused);
    response
}

/// A change of this broker's own properties must leave its listeners usable: only here are the files that they name.
async fn check_security(context: &Arc<BrokerContext>, resource: &Resource) -> Result<(), String> {
    let own_name = context.options.node_id.to_string();
    let is_own = i32::from(resource.resource_type) == i32::from(ResourceType::Broker)
        && (resource.resource_name.is_empty() || *resource.resource_name == *own_name);
    if !is_own {
        return Ok(());
    }
    let changes = resource
        .configs
        .iter()
        .filter(|config| matches!(config.config_operation, SET | DELETE))
        .map(|config| {
            let value = config.value.as_deref().filter(|_| config.config_operation == SET);
            (config.name.to_string(), value.map(str::to_owned))
        })
        .collect::<Vec<_>>();
    let context = Arc::clone(context);
    let check = move || context.security.check(&context.image.current(), &changes);
    let checked = tokio::task::spawn_blocking(check).await.map_err(|error| error.to_string())?;
    checked.map_err(|error| error.to_string())
}

async fn alter_checked(
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
