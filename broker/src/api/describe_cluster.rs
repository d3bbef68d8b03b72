//! DescribeCluster 0-2: the brokers, fenced ones too when asked for.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_cluster_response::Broker;
use ottla_wire::messages::{DescribeClusterRequest, DescribeClusterResponse};
use ottla_wire::text::Text;

use super::authorization::OPERATIONS_OMITTED;
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// The only endpoints that this listener tells of: brokers.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeClusterRequest,
) -> Answer {
    let context = &dispatcher.context;
    if request.endpoint_type != BROKERS {
        let (code, message) = if request.endpoint_type == CONTROLLERS {
            (ErrorCode::MismatchedEndpointType, "this listener tells of brokers; controllers speak gRPC")
        } else {
            (ErrorCode::UnsupportedEndpointType, "the endpoint type is not known")
        };
        return call.ready(&DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some(message.into()),
            endpoint_type: request.endpoint_type,
            ..Default::default()
        });
    }
    let image = context.image.current();
    let nodes = BrokerContext::nodes(&image, &call.listener);
    let mut brokers: Vec<Broker> = nodes
        .iter()
        .map(|node| Broker {
            broker_id: node.id,
            host: node.host.clone(),
            port: node.port,
            rack: node.rack.as_deref().map(Text::from),
            is_fenced: false,
        })
        .collect();
    if request.include_fenced_brokers {
        brokers.extend(BrokerContext::fenced_nodes(&image, &call.listener).into_iter().map(|node| Broker {
            broker_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack.map(Text::from),
            is_fenced: true,
        }));
        brokers.sort_by_key(|broker| broker.broker_id);
    }
    call.ready(&DescribeClusterResponse {
        cluster_id: Text::from(image.cluster_id()),
        controller_id: context.controller_id(&nodes),
        brokers,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            context.access(&call).cluster_operations()
        } else {
            OPERATIONS_OMITTED
        },
        ..Default::default()
    })
}
