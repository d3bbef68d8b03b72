//! UnregisterBroker 0: the cluster forgets a broker (KIP-500). Its replicas stay assigned to it.

use std::sync::Arc;
use std::time::Duration;

use ottla_proto::controller as proto;
use ottla_wire::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::forward::submit;
use super::{Answer, Call, Client, Dispatcher};

/// The request names no timeout; this is the broker's `request.timeout.ms`.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: UnregisterBrokerRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    if let Err(code) = context.access(&call).cluster(Operation::Alter) {
        return call.ready(&UnregisterBrokerResponse {
            error_code: code.code(),
            error_message: Some(REFUSED.into()),
            ..Default::default()
        });
    }
    let command = proto::UnregisterBroker { broker_id: request.broker_id };
    call.exclusive(async move {
        let outcome = submit(&context, proto::command::Command::UnregisterBroker(command), PATIENCE).await;
        let mut response = UnregisterBrokerResponse::default();
        if let Err((code, message)) = outcome {
            response.error_code = code.code();
            response.error_message = Some(Text::from(message));
        }
        response
    })
}
