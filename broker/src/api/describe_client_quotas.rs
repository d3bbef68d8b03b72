//! DescribeClientQuotas 0-1: limits of users, client ids and addresses, by a filter (KIP-546).

use ottla_metadata::decide::{QuotaFilter, Refusal, describe_client_quotas};
use ottla_metadata::image::MetadataImage;
use ottla_wire::messages::describe_client_quotas_response::{Entity, Entry, Value};
use ottla_wire::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeClientQuotasRequest,
) -> Answer {
    let context = &dispatcher.context;
    let permitted = context.access(&call).cluster(Operation::DescribeConfigs);
    let described = permitted
        .map_err(|code| Refusal::new(code, REFUSED))
        .and_then(|()| describe(&context.image.current(), &request));
    let response = match described {
        Ok(entries) => {
            DescribeClientQuotasResponse { error_message: None, entries: Some(entries), ..Default::default() }
        }
        Err(refusal) => DescribeClientQuotasResponse {
            error_code: refusal.code.code(),
            error_message: Some(Text::from(refusal.message)),
            entries: None,
            ..Default::default()
        },
    };
    call.ready(&response)
}

fn describe(image: &MetadataImage, request: &DescribeClientQuotasRequest) -> Result<Vec<Entry>, Refusal> {
    let filters = request
        .components
        .iter()
        .map(|component| {
            QuotaFilter::new(&component.entity_type, component.match_type, component.r#match.as_deref())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let found = describe_client_quotas(image, &filters, request.strict)?;
    let entry = |(entity, values): ottla_metadata::decide::DescribedQuota| Entry {
        entity: entity
            .parts()
            .into_iter()
            .map(|part| Entity {
                entity_type: Text::from(part.r#type),
                entity_name: part.name.map(Text::from),
            })
            .collect(),
        values: values.into_iter().map(|(key, value)| Value { key: Text::from(key), value }).collect(),
    };
    Ok(found.into_iter().map(entry).collect())
}
