//! AlterUserScramCredentials 0: passwords of users (KIP-554). What the client has salted goes no further than this broker: the
//! controllers are given the keys that follow from it, which do not sign in.

use std::sync::Arc;

use bytes::Bytes;
use ottla_proto::controller as proto;
use ottla_proto::metadata::RemoveScramCredentialRecord;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::alter_user_scram_credentials_request::Upsertion;
use ottla_wire::messages::alter_user_scram_credentials_response::Result as Altered;
use ottla_wire::messages::{AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::forward::{REQUEST_TIMEOUT, WRONG_REPLY, code_of, message_of, submit};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::security::sasl::scram::ScramMechanism;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: AlterUserScramCredentialsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    if let Err(code) = context.access(&call).cluster(Operation::Alter) {
        return call.ready(&refuse_all(&users(&request), code, REFUSED));
    }
    let at = call.clone();
    call.exclusive(async move { alter(&context, &at, request).await })
}

/// Whom a request is about, each once.
fn users(request: &AlterUserScramCredentialsRequest) -> Vec<Text> {
    let deleted = request.deletions.iter().map(|deletion| &deletion.name);
    let mut users: Vec<Text> =
        deleted.chain(request.upsertions.iter().map(|upsertion| &upsertion.name)).cloned().collect();
    users.sort_unstable();
    users.dedup();
    users
}

fn refuse_all(users: &[Text], code: ErrorCode, message: &str) -> AlterUserScramCredentialsResponse {
    let refuse = |user: &Text| Altered {
        user: user.clone(),
        error_code: code.code(),
        error_message: Some(Text::from(message)),
    };
    AlterUserScramCredentialsResponse { results: users.iter().map(refuse).collect(), ..Default::default() }
}

async fn alter(
    context: &BrokerContext,
    call: &Call,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let users = users(&request);
    let removal = |deletion: &ottla_wire::messages::alter_user_scram_credentials_request::Deletion| {
        RemoveScramCredentialRecord { user: deletion.name.to_string(), mechanism: deletion.mechanism.into() }
    };
    let command = proto::AlterScramCredentials {
        deletions: request.deletions.iter().map(removal).collect(),
        upsertions: request.upsertions.into_iter().map(upsertion).collect(),
    };
    match submit(context, proto::command::Command::AlterScramCredentials(command), REQUEST_TIMEOUT).await {
        Ok(proto::command_reply::Reply::AlterScramCredentials(reply)) => {
            let altered = |altered: proto::AlteredScramUser| {
                if altered.error_code == 0 {
                    tracing::info!(target: "ottla::audit", by = %call.principal, user = altered.user, "credentials changed");
                }
                Altered {
                    user: Text::from(altered.user),
                    error_code: code_of(altered.error_code).code(),
                    error_message: message_of(altered.error_code, altered.message),
                }
            };
            AlterUserScramCredentialsResponse {
                results: reply.users.into_iter().map(altered).collect(),
                ..Default::default()
            }
        }
        Ok(_) => refuse_all(&users, ErrorCode::UnknownServerError, WRONG_REPLY),
        Err((code, message)) => refuse_all(&users, code, &message),
    }
}

/// The keys that follow from a salted password. A mechanism that is not known has none, and is refused by the controller.
fn upsertion(asked: Upsertion) -> proto::ScramUpsertion {
    let (stored_key, server_key) = match ScramMechanism::from_code(asked.mechanism) {
        Some(mechanism) => {
            let credential = mechanism.credential_of_salted(&asked.salted_password, asked.salt.clone(), 0);
            (credential.stored_key, credential.server_key)
        }
        None => (Bytes::new(), Bytes::new()),
    };
    proto::ScramUpsertion {
        user: asked.name.to_string(),
        mechanism: asked.mechanism.into(),
        salt: asked.salt,
        stored_key,
        server_key,
        iterations: asked.iterations,
    }
}
