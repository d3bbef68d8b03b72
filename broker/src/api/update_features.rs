//! UpdateFeatures 0-2: raises and lowers what the cluster has agreed to do (KIP-584, KIP-1022): all or nothing.

use std::sync::Arc;

use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::update_features_request::FeatureUpdate;
use ottla_wire::messages::update_features_response::Result as Updated;
use ottla_wire::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::forward::{code_of, misunderstood, patience, submit};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// From this version on the request says how a level may change, and not only whether it may sink.
const UPGRADE_TYPE_FROM: i16 = 1;
/// From this version on there is one outcome for all.
const ONE_OUTCOME_FROM: i16 = 2;

const UPGRADE: i32 = 1;
const SAFE_DOWNGRADE: i32 = 2;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: UpdateFeaturesRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let version = call.version;
    if let Err(code) = context.access(&call).cluster(Operation::Alter) {
        let mut response = UpdateFeaturesResponse::default();
        refuse(&mut response, code, REFUSED.to_owned());
        return call.ready(&response);
    }
    call.exclusive(async move { update(&context, version, request).await })
}

async fn update(
    context: &BrokerContext,
    version: i16,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let command = proto::UpdateFeatures {
        validate_only: version >= UPGRADE_TYPE_FROM && request.validate_only,
        updates: request.feature_updates.iter().map(|update| to_command(version, update)).collect(),
    };
    let command = proto::command::Command::UpdateFeatures(command);
    let outcome = match submit(context, command, patience(request.timeout_ms)).await {
        Ok(proto::command_reply::Reply::UpdateFeatures(reply)) => {
            let failed = reply.features.into_iter().find(|feature| feature.error_code != 0);
            failed.map_or(Ok(()), |failed| Err((code_of(failed.error_code), failed.message)))
        }
        Ok(_) => Err(misunderstood()),
        Err(refusal) => Err(refusal),
    };
    let mut response = UpdateFeaturesResponse::default();
    match outcome {
        Ok(()) if version < ONE_OUTCOME_FROM => {
            response.results = request
                .feature_updates
                .iter()
                .map(|update| Updated { feature: update.feature.clone(), ..Default::default() })
                .collect();
        }
        Ok(()) => {}
        Err((code, message)) => refuse(&mut response, code, message),
    }
    response
}

fn refuse(response: &mut UpdateFeaturesResponse, code: ErrorCode, message: String) {
    response.error_code = code.code();
    response.error_message = Some(Text::from(message));
}

fn to_command(version: i16, update: &FeatureUpdate) -> proto::FeatureUpdate {
    let upgrade_type = match version {
        UPGRADE_TYPE_FROM.. => i32::from(update.upgrade_type),
        _ if update.allow_downgrade => SAFE_DOWNGRADE,
        _ => UPGRADE,
    };
    proto::FeatureUpdate {
        name: update.feature.to_string(),
        level_max: i32::from(update.max_version_level),
        upgrade_type,
    }
}
