//! AlterClientQuotas 0-1: limits of users, client ids and addresses, set and removed (KIP-546).

use std::sync::Arc;

use ottla_proto::controller as proto;
use ottla_proto::metadata::QuotaEntityPart;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::alter_client_quotas_request::Entry as Asked;
use ottla_wire::messages::alter_client_quotas_response::{Entity, Entry};
use ottla_wire::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::forward::{REQUEST_TIMEOUT, WRONG_REPLY, code_of, message_of, submit};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: AlterClientQuotasRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    if let Err(code) = context.access(&call).cluster(Operation::AlterConfigs) {
        return call.ready(&refuse_all(&request, code, REFUSED));
    }
    let at = call.clone();
    call.exclusive(async move { alter(&context, &at, request).await })
}

fn refuse_all(
    request: &AlterClientQuotasRequest,
    code: ErrorCode,
    message: &str,
) -> AlterClientQuotasResponse {
    let refuse = |asked: &Asked| answer(asked, code, Some(Text::from(message)));
    AlterClientQuotasResponse { entries: request.entries.iter().map(refuse).collect(), ..Default::default() }
}

async fn alter(
    context: &BrokerContext,
    call: &Call,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    let command = proto::AlterClientQuotas {
        validate_only: request.validate_only,
        entries: request.entries.iter().map(alteration).collect(),
    };
    match submit(context, proto::command::Command::AlterClientQuotas(command), REQUEST_TIMEOUT).await {
        Ok(proto::command_reply::Reply::AlterClientQuotas(reply)) => {
            let entry = |(asked, altered): (&Asked, proto::AlteredQuota)| {
                if altered.error_code == 0 && !request.validate_only {
                    tracing::info!(target: "ottla::audit", by = %call.principal, change = ?asked, "quota changed");
                }
                answer(asked, code_of(altered.error_code), message_of(altered.error_code, altered.message))
            };
            AlterClientQuotasResponse {
                entries: request.entries.iter().zip(reply.entries).map(entry).collect(),
                ..Default::default()
            }
        }
        Ok(_) => refuse_all(&request, ErrorCode::UnknownServerError, WRONG_REPLY),
        Err((code, message)) => refuse_all(&request, code, &message),
    }
}

fn answer(asked: &Asked, code: ErrorCode, error_message: Option<Text>) -> Entry {
    let part = |part: &ottla_wire::messages::alter_client_quotas_request::Entity| Entity {
        entity_type: part.entity_type.clone(),
        entity_name: part.entity_name.clone(),
    };
    Entry { error_code: code.code(), error_message, entity: asked.entity.iter().map(part).collect() }
}

fn alteration(asked: &Asked) -> proto::QuotaAlteration {
    proto::QuotaAlteration {
        entity: asked
            .entity
            .iter()
            .map(|part| QuotaEntityPart {
                r#type: part.entity_type.to_string(),
                name: part.entity_name.as_ref().map(ToString::to_string),
            })
            .collect(),
        changes: asked
            .ops
            .iter()
            .map(|change| proto::QuotaChange {
                key: change.key.to_string(),
                value: (!change.remove).then_some(change.value),
            })
            .collect(),
    }
}
