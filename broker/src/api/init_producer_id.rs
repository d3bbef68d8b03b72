//! InitProducerId 0-5: for idempotent producers a new producer id at epoch 0; with a transactional id what its coordinator
//! gives, which fences whoever had the id before (KIP-98, KIP-360).

use std::sync::Arc;

use ottla_coordinator::transaction::{
    Command, InitProducerId, PRODUCER_FENCED_SINCE_INIT_PRODUCER_ID, ProducerReply, Reply,
    for_request_version,
};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{InitProducerIdRequest, InitProducerIdResponse};
use ottla_wire::text::Text;

use super::authorization::Operation;
use super::forward::code_of;
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::producer_ids::ProducerIdError;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    mut request: InitProducerIdRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let access = context.access(&call);
    let permitted = match &request.transactional_id {
        Some(id) => access.transactional_id(Operation::Write, id),
        None => access.idempotent_write(),
    };
    if let Err(code) = permitted {
        return call.ready(&refused(code));
    }
    if let Some(transactional_id) = request.transactional_id.take() {
        let version = call.version;
        return call.exclusive(async move {
            of_transactional_id(&context, version, transactional_id, &request).await
        });
    }
    if (request.producer_id < 0) != (request.producer_epoch < 0) {
        return call.ready(&refused(ErrorCode::InvalidRequest));
    }
    // KIP-360: an idempotent producer that bumps its epoch keeps its id as long as the epoch has room.
    if request.producer_id >= 0 && request.producer_epoch < i16::MAX - 1 {
        return call.ready(&InitProducerIdResponse {
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch + 1,
            ..Default::default()
        });
    }
    call.exclusive(async move {
        match context.producer_ids.next(context.broker_epoch()).await {
            Ok(producer_id) => {
                InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() }
            }
            Err(error) => {
                tracing::warn!(%error, "no producer id");
                refused(match error {
                    ProducerIdError::Link(_) => ErrorCode::CoordinatorNotAvailable,
                    ProducerIdError::Refused(code, _) => code_of(code),
                })
            }
        }
    })
}

fn refused(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: error.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    }
}

async fn of_transactional_id(
    context: &BrokerContext,
    version: i16,
    transactional_id: Text,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let command = Command::InitProducerId(InitProducerId {
        transactional_id,
        timeout_ms: request.transaction_timeout_ms,
        producer_id: request.producer_id,
        producer_epoch: request.producer_epoch,
        enable_two_phase_commit: request.enable2_pc,
        keep_prepared: request.keep_prepared_txn,
        fresh_producer_id: None,
    });
    let reply = match context.transactions.submit(command).await {
        Reply::InitProducerId(reply) => reply,
        _ => ProducerReply::refused(ErrorCode::UnknownServerError),
    };
    let error = for_request_version(reply.error, version, PRODUCER_FENCED_SINCE_INIT_PRODUCER_ID);
    InitProducerIdResponse {
        error_code: error.code(),
        producer_id: reply.producer_id,
        producer_epoch: reply.producer_epoch,
        ..Default::default()
    }
}
