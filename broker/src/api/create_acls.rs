//! CreateAcls 1-3: rules of who may do what. Each stands or falls by itself; one that is there already is fine.

use std::sync::Arc;

use bytes::Bytes;
use ottla_proto::controller as proto;
use ottla_proto::metadata::AclRecord;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::create_acls_request::Creation;
use ottla_wire::messages::create_acls_response::Result as Created;
use ottla_wire::messages::{CreateAclsRequest, CreateAclsResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::{Operation, REFUSED};
use super::describe_acls::NO_AUTHORIZER;
use super::forward::{REQUEST_TIMEOUT, WRONG_REPLY, code_of, message_of, submit};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: CreateAclsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let count = request.creations.len();
    if let Err(code) = context.access(&call).cluster(Operation::Alter) {
        return call.ready(&refuse_all(count, code, REFUSED));
    }
    if context.authorizer.is_none() {
        return call.ready(&refuse_all(count, ErrorCode::SecurityDisabled, NO_AUTHORIZER));
    }
    let at = call.clone();
    call.exclusive(async move { create(&context, &at, request).await })
}

fn refuse_all(count: usize, code: ErrorCode, message: &str) -> CreateAclsResponse {
    let result = Created { error_code: code.code(), error_message: Some(Text::from(message)) };
    CreateAclsResponse { results: vec![result; count], ..Default::default() }
}

async fn create(context: &BrokerContext, call: &Call, request: CreateAclsRequest) -> CreateAclsResponse {
    let acls = request.creations.iter().map(record).collect();
    let command = proto::command::Command::CreateAcls(proto::CreateAcls { acls });
    match submit(context, command, REQUEST_TIMEOUT).await {
        Ok(proto::command_reply::Reply::CreateAcls(reply)) => {
            for (asked, created) in request.creations.iter().zip(&reply.acls) {
                if created.error_code == 0 {
                    tracing::info!(target: "ottla::audit", by = %call.principal, rule = ?asked, "rule added");
                }
            }
            let result = |created: proto::CreatedAcl| Created {
                error_code: code_of(created.error_code).code(),
                error_message: message_of(created.error_code, created.message),
            };
            CreateAclsResponse { results: reply.acls.into_iter().map(result).collect(), ..Default::default() }
        }
        Ok(_) => refuse_all(request.creations.len(), ErrorCode::UnknownServerError, WRONG_REPLY),
        Err((code, message)) => refuse_all(request.creations.len(), code, &message),
    }
}

fn record(asked: &Creation) -> AclRecord {
    AclRecord {
        id: Bytes::copy_from_slice(Uuid::new_v4().as_bytes()),
        resource_type: asked.resource_type.into(),
        resource_name: asked.resource_name.to_string(),
        pattern_type: asked.resource_pattern_type.into(),
        principal: asked.principal.to_string(),
        host: asked.host.to_string(),
        operation: asked.operation.into(),
        permission: asked.permission_type.into(),
    }
}
