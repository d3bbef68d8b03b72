//! InitProducerId 0-5 for idempotent producers: a new producer id at epoch 0.
//!
//! A transactional id is refused: there is no transaction coordinator yet.

use std::sync::Arc;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::authorization::Operation;
use super::forward::code_of;
use super::{Answer, Call, Client, Dispatcher};
use crate::producer_ids::ProducerIdError;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: InitProducerIdRequest,
) -> Answer {
    let access = dispatcher.context.access(&call);
    let permitted = match &request.transactional_id {
        Some(id) => access.transactional_id(Operation::Write, id),
        None => access.idempotent_write(),
    };
    if let Some(code) = permitted.err().or_else(|| refusal(&request)) {
        return call.ready(&InitProducerIdResponse { error_code: code.code(), ..Default::default() });
    }
    // KIP-360: an idempotent producer that bumps its epoch keeps its id as long as the epoch has room.
    if request.producer_id >= 0 && request.producer_epoch >= 0 && request.producer_epoch < i16::MAX - 1 {
        return call.ready(&InitProducerIdResponse {
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch + 1,
            ..Default::default()
        });
    }
    let context = Arc::clone(&dispatcher.context);
    call.exclusive(async move {
        match context.producer_ids.next(context.broker_epoch()).await {
            Ok(producer_id) => {
                InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() }
            }
            Err(error) => {
                tracing::warn!(%error, "no producer id");
                let code = match error {
                    ProducerIdError::Link(_) => ErrorCode::CoordinatorNotAvailable,
                    ProducerIdError::Refused(code, _) => code_of(code),
                };
                InitProducerIdResponse { error_code: code.code(), ..Default::default() }
            }
        }
    })
}

fn refusal(request: &InitProducerIdRequest) -> Option<ErrorCode> {
    match &request.transactional_id {
        Some(id) if id.is_empty() => Some(ErrorCode::InvalidRequest),
        Some(_) => Some(ErrorCode::UnsupportedVersion),
        None if (request.producer_id < 0) != (request.producer_epoch < 0) => Some(ErrorCode::InvalidRequest),
        None => None,
    }
}
