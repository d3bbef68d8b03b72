//! EndTxn 0-5: commits or aborts. Answered when the decision is in the coordinator's log; the markers follow. From version 5
//! on the answer gives the producer's next epoch (KIP-890).

use std::sync::Arc;

use ottla_coordinator::transaction::{
    Command, EndTxn, PRODUCER_FENCED_SINCE_END_TXN, ProducerReply, Reply, TransactionVersion,
    for_request_version,
};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{EndTxnRequest, EndTxnResponse};

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};

/// From this version on each end raises the epoch.
const VERSION_2_FROM: i16 = 5;

pub(super) fn handle(dispatcher: &Dispatcher, _: &mut Client, call: Call, request: EndTxnRequest) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let version = call.version;
    if let Err(code) = context.access(&call).transactional_id(Operation::Write, &request.transactional_id) {
        return call.ready(&EndTxnResponse { error_code: code.code(), ..Default::default() });
    }
    call.exclusive(async move {
        let command = Command::EndTxn(EndTxn {
            transactional_id: request.transactional_id,
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch,
            commit: request.committed,
            client_version: if version >= VERSION_2_FROM {
                TransactionVersion::V2
            } else {
                TransactionVersion::V0
            },
            fresh_producer_id: None,
        });
        let reply = match context.transactions.submit(command).await {
            Reply::EndTxn(reply) => reply,
            _ => ProducerReply::refused(ErrorCode::UnknownServerError),
        };
        let error = for_request_version(reply.error, version, PRODUCER_FENCED_SINCE_END_TXN);
        let mut response = EndTxnResponse { error_code: error.code(), ..Default::default() };
        if version >= VERSION_2_FROM {
            response.producer_id = reply.producer_id;
            response.producer_epoch = reply.producer_epoch;
        }
        response
    })
}
