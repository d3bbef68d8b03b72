//! SaslHandshake outside of an authentication: refused. What belongs to one never gets here, the connection takes it.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{SaslHandshakeRequest, SaslHandshakeResponse};

use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(_: &Dispatcher, _: &mut Client, call: Call, _: SaslHandshakeRequest) -> Answer {
    call.ready(&SaslHandshakeResponse {
        error_code: ErrorCode::IllegalSaslState.code(),
        ..Default::default()
    })
}
