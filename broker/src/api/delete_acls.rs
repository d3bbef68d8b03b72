//! DeleteAcls 1-3: the rules that filters mean go, and are told.

use std::sync::Arc;

use ottla_proto::controller as proto;
use ottla_proto::metadata::AclRecord;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::delete_acls_request::Filter;
use ottla_wire::messages::delete_acls_response::{FilterResult, MatchingAcl};
use ottla_wire::messages::{DeleteAclsRequest, DeleteAclsResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::describe_acls::NO_AUTHORIZER;
use super::forward::{REQUEST_TIMEOUT, WRONG_REPLY, code_of, message_of, submit};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DeleteAclsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let count = request.filters.len();
    if let Err(code) = context.access(&call).cluster(Operation::Alter) {
        return call.ready(&refuse_all(count, code, REFUSED));
    }
    if context.authorizer.is_none() {
        return call.ready(&refuse_all(count, ErrorCode::SecurityDisabled, NO_AUTHORIZER));
    }
    let at = call.clone();
    call.exclusive(async move { delete(&context, &at, request).await })
}

fn refuse_all(count: usize, code: ErrorCode, message: &str) -> DeleteAclsResponse {
    let result = FilterResult {
        error_code: code.code(),
        error_message: Some(Text::from(message)),
        ..Default::default()
    };
    DeleteAclsResponse { filter_results: vec![result; count], ..Default::default() }
}

async fn delete(context: &BrokerContext, call: &Call, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let count = request.filters.len();
    let filters = request.filters.into_iter().map(filter).collect();
    let command = proto::command::Command::DeleteAcls(proto::DeleteAcls { filters });
    match submit(context, command, REQUEST_TIMEOUT).await {
        Ok(proto::command_reply::Reply::DeleteAcls(reply)) => {
            for rule in reply.filters.iter().flat_map(|found| &found.acls) {
                tracing::info!(target: "ottla::audit", by = %call.principal, ?rule, "rule removed");
            }
            let result = |found: proto::DeletedAcls| FilterResult {
                error_code: code_of(found.error_code).code(),
                error_message: message_of(found.error_code, found.message),
                matching_acls: found.acls.into_iter().map(matching).collect(),
            };
            DeleteAclsResponse {
                filter_results: reply.filters.into_iter().map(result).collect(),
                ..Default::default()
            }
        }
        Ok(_) => refuse_all(count, ErrorCode::UnknownServerError, WRONG_REPLY),
        Err((code, message)) => refuse_all(count, code, &message),
    }
}

fn filter(asked: Filter) -> proto::AclFilter {
    proto::AclFilter {
        resource_type: asked.resource_type_filter.into(),
        resource_name: asked.resource_name_filter.map(|name| name.to_string()),
        pattern_type: asked.pattern_type_filter.into(),
        principal: asked.principal_filter.map(|principal| principal.to_string()),
        host: asked.host_filter.map(|host| host.to_string()),
        operation: asked.operation.into(),
        permission: asked.permission_type.into(),
    }
}

fn matching(acl: AclRecord) -> MatchingAcl {
    let number = |number: i32| i8::try_from(number).unwrap_or_default();
    MatchingAcl {
        error_message: None,
        resource_type: number(acl.resource_type),
        resource_name: Text::from(acl.resource_name),
        pattern_type: number(acl.pattern_type),
        principal: Text::from(acl.principal),
        host: Text::from(acl.host),
        operation: number(acl.operation),
        permission_type: number(acl.permission),
        ..Default::default()
    }
}
