//! What the handlers share that pass a change on to the controller.

use std::time::Duration;

use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use crate::context::BrokerContext;

/// A client that asks for longer than this is answered sooner all the same.
const PATIENCE_MAX: Duration = Duration::from_secs(120);
/// A change is tried for at least this long, however impatient the client: it may be committed anyway.
const PATIENCE_MIN: Duration = Duration::from_millis(500);

/// How long a change is tried whose request names no timeout: `request.timeout.ms` of Kafka's brokers.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The controller and this broker do not understand each other.
pub(super) const WRONG_REPLY: &str = "the controller answered another question";

/// What a client is told whose changes of the metadata come too fast.
pub(super) const QUOTA_EXCEEDED: &str = "The throttling quota has been exceeded.";

/// How long to wait for the controller, from a request's timeout.
pub(super) fn patience(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)).clamp(PATIENCE_MIN, PATIENCE_MAX)
}

/// The refusal of a command as a whole, if it was refused.
pub(super) fn refusal_of(reply: &proto::CommandReply) -> Result<(), (ErrorCode, String)> {
    match &reply.failure {
        Some(failure) if failure.error_code != 0 => {
            Err((code_of(failure.error_code), failure.message.clone()))
        }
        _ => Ok(()),
    }
}

/// Kafka's error code of a controller's answer.
pub(super) fn code_of(code: i32) -> ErrorCode {
    i16::try_from(code).map_or(ErrorCode::UnknownServerError, ErrorCode::from_code)
}

/// Waits until this broker has applied the change that was answered.
pub(super) async fn wait_for_index(context: &BrokerContext, index: i64, patience: Duration) {
    if index > 0 {
        context.image.wait_for(index, patience).await;
    }
}

/// The texts of errors: none where there is no error.
pub(super) fn message_of(error_code: i32, message: String) -> Option<Text> {
    (error_code != 0).then(|| Text::from(message))
}

/// What a controller that answers another question than it was asked gets called.
pub(super) fn misunderstood() -> (ErrorCode, String) {
    (ErrorCode::UnknownServerError, WRONG_REPLY.to_owned())
}

/// Has the controller carry out a change and waits until this broker has seen it, so that the client's next request does;
/// `Err`: it was refused as a whole.
pub(super) async fn submit(
    context: &BrokerContext,
    command: proto::command::Command,
    patience: Duration,
) -> Result<proto::command_reply::Reply, (ErrorCode, String)> {
    let reply = context
        .controller
        .submit_within(command, patience)
        .await
        .map_err(|error| (ErrorCode::RequestTimedOut, error.to_string()))?;
    refusal_of(&reply)?;
    wait_for_index(context, reply.index, patience).await;
    reply.reply.ok_or_else(misunderstood)
}

/// Kafka's number of a controller's error, which is always one of Kafka's.
pub(super) fn number_of(error_code: i32) -> i16 {
    i16::try_from(error_code).unwrap_or(-1)
}
