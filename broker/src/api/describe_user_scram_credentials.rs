//! DescribeUserScramCredentials 0: which users have credentials of SCRAM, never what they are (KIP-554).

use ottla_metadata::decide::{DescribedScramUser, describe_scram_users};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_user_scram_credentials_response::{CredentialInfo, Result as Described};
use ottla_wire::messages::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeUserScramCredentialsRequest,
) -> Answer {
    let context = &dispatcher.context;
    if let Err(code) = context.access(&call).cluster(Operation::Describe) {
        return call.ready(&DescribeUserScramCredentialsResponse {
            error_code: code.code(),
            error_message: Some(REFUSED.into()),
            ..Default::default()
        });
    }
    let users: Vec<&str> = request.users.iter().flatten().map(|user| &*user.name).collect();
    let results = describe_scram_users(&context.image.current(), &users).into_iter().map(to_answer).collect();
    call.ready(&DescribeUserScramCredentialsResponse { error_message: None, results, ..Default::default() })
}

fn to_answer(described: DescribedScramUser) -> Described {
    let error_message = match described.error {
        ErrorCode::None => None,
        ErrorCode::DuplicateResource => Some(format!(
            "Cannot describe SCRAM credentials for the same user twice in a single request: {}",
            described.user
        )),
        _ => Some(format!("the user {} has no SCRAM credential", described.user)),
    };
    Described {
        user: Text::from(described.user),
        error_code: described.error.code(),
        error_message: error_message.map(Text::from),
        credential_infos: described
            .credentials
            .into_iter()
            .map(|(mechanism, iterations)| CredentialInfo { mechanism: mechanism.code(), iterations })
            .collect(),
    }
}
