//! DescribeAcls 1-3: the rules that a filter means, those of one resource pattern together.

use std::collections::BTreeMap;

use ottla_metadata::acl::{Acl, AclResourceType, PatternType};
use ottla_metadata::decide::acl_filter;
use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_acls_response::{Acl as Rule, Resource};
use ottla_wire::messages::{DescribeAclsRequest, DescribeAclsResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// What a client is told that asks for rules where nobody looks at rules.
pub(super) const NO_AUTHORIZER: &str = "No Authorizer is configured.";

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeAclsRequest,
) -> Answer {
    let response = match describe(&dispatcher.context, &call, request) {
        Ok(resources) => DescribeAclsResponse { resources, error_message: None, ..Default::default() },
        Err((code, message)) => DescribeAclsResponse {
            error_code: code.code(),
            error_message: Some(Text::from(message)),
            ..Default::default()
        },
    };
    call.ready(&response)
}

fn describe(
    context: &BrokerContext,
    call: &Call,
    request: DescribeAclsRequest,
) -> Result<Vec<Resource>, (ErrorCode, String)> {
    let refuse = |code| (code, REFUSED.to_owned());
    context.access(call).cluster(Operation::Describe).map_err(refuse)?;
    if context.authorizer.is_none() {
        return Err((ErrorCode::SecurityDisabled, NO_AUTHORIZER.to_owned()));
    }
    let filter = acl_filter(&proto::AclFilter {
        resource_type: request.resource_type_filter.into(),
        resource_name: request.resource_name_filter.map(|name| name.to_string()),
        pattern_type: request.pattern_type_filter.into(),
        principal: request.principal_filter.map(|principal| principal.to_string()),
        host: request.host_filter.map(|host| host.to_string()),
        operation: request.operation.into(),
        permission: request.permission_type.into(),
    })
    .map_err(|refusal| (refusal.code, refusal.message))?;
    let image = context.image.current();
    let mut resources: BTreeMap<(AclResourceType, PatternType, &str), Vec<Rule>> = BTreeMap::new();
    for (_, acl) in image.acls().filtered(&filter) {
        let pattern = (acl.resource_type, acl.pattern_type, acl.resource_name.as_str());
        resources.entry(pattern).or_default().push(rule(acl));
    }
    let resource =
        |((kind, pattern, name), acls): ((AclResourceType, PatternType, &str), Vec<Rule>)| Resource {
            resource_type: kind.code(),
            resource_name: Text::from(name),
            pattern_type: pattern.code(),
            acls,
        };
    Ok(resources.into_iter().map(resource).collect())
}

fn rule(acl: &Acl) -> Rule {
    Rule {
        principal: Text::from(acl.principal.as_str()),
        host: Text::from(acl.host.as_str()),
        operation: acl.operation.code(),
        permission_type: acl.permission.code(),
    }
}
