//! SaslAuthenticate outside of an authentication: refused. What belongs to one never gets here, the connection takes it.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};

use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(_: &Dispatcher, _: &mut Client, call: Call, _: SaslAuthenticateRequest) -> Answer {
    call.ready(&SaslAuthenticateResponse {
        error_code: ErrorCode::IllegalSaslState.code(),
        error_message: Some("SaslAuthenticate request received after successful authentication".into()),
        ..Default::default()
    })
}
