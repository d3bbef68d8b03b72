//! DescribeTransactions 0: transactional ids that this broker coordinates, in detail (KIP-664).

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_transactions_response::{Topic, TransactionState};
use ottla_wire::messages::{DescribeTransactionsRequest, DescribeTransactionsResponse};
use ottla_wire::text::Text;

use super::authorization::{Access, Operation};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeTransactionsRequest,
) -> Answer {
    let context = &dispatcher.context;
    let access = context.access(&call);
    let ids = request.transactional_ids.into_iter();
    let transaction_states = ids.map(|id| describe(context, &access, id)).collect();
    call.ready(&DescribeTransactionsResponse { transaction_states, ..Default::default() })
}

fn describe(context: &BrokerContext, access: &Access, transactional_id: Text) -> TransactionState {
    let found = access.transactional_id(Operation::Describe, &transactional_id).and_then(|()| {
        context.transactions.query(&transactional_id, |machine| machine.describe(&transactional_id))
    });
    match found {
        Ok(found) => TransactionState {
            error_code: ErrorCode::None.code(),
            transactional_id,
            transaction_state: found.state.name().into(),
            transaction_timeout_ms: found.timeout_ms,
            transaction_start_time_ms: found.start_ms,
            producer_id: found.producer_id,
            producer_epoch: found.producer_epoch,
            topics: found
                .topics
                .into_iter()
                .filter(|(topic, _)| access.sees_topic(Operation::Describe, topic))
                .map(|(topic, partitions)| Topic { topic, partitions })
                .collect(),
        },
        Err(error) => TransactionState { error_code: error.code(), transactional_id, ..Default::default() },
    }
}
