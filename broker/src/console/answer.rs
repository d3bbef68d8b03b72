//! What the console's API answers: JSON, and errors as `{"error": {"code", "message", "hint"}}` with Kafka's name of the code.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ottla_wire::error_code::ErrorCode;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::peers::AskError;

/// An answer that worked.
pub(super) type Answer = Result<Json, ApiError>;

/// One JSON document.
#[derive(Debug)]
pub(super) struct Json(pub(super) Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
        (kind, self.0.to_string()).into_response()
    }
}

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: String,
}

impl ApiError {
    fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code: code.name(), message: message.into(), hint: String::new() }
    }

    /// The request makes no sense; the text says which part.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidRequest, message)
    }

    /// There is no such thing.
    pub(super) fn not_found(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// Whoever asks has to say who they are.
    pub(super) fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::SaslAuthenticationFailed, message)
    }

    /// Not from another site.
    pub(super) fn forged(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::InvalidRequest, message)
    }

    /// Longer than what is taken.
    pub(super) fn too_long(message: impl Into<String>) -> Self {
        Self::new(StatusCode::URI_TOO_LONG, ErrorCode::InvalidRequest, message)
    }

    /// Too many at once.
    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::RequestTimedOut, message)
    }

    /// This node cannot answer it.
    pub(super) fn no_broker() -> Self {
        Self {
            hint: "open the console of a node whose process.roles has broker".to_owned(),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::BrokerNotAvailable,
                "this node is no broker, or has not started as one yet: it knows neither messages nor groups",
            )
        }
    }

    /// Kafka's error of one part of an answer.
    pub(super) fn of_code(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = match code {
            ErrorCode::UnknownTopicOrPartition | ErrorCode::GroupIdNotFound => StatusCode::NOT_FOUND,
            ErrorCode::TopicAlreadyExists | ErrorCode::NonEmptyGroup => StatusCode::CONFLICT,
            ErrorCode::TopicAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed => StatusCode::FORBIDDEN,
            ErrorCode::NotController
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::RequestTimedOut => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::UnknownServerError => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, code, message)
    }

    /// As [`Self::of_code`], without words of its own.
    pub(super) fn plain(code: ErrorCode) -> Self {
        match refused(code) {
            Some(message) => Self { hint: NO_RIGHT_HINT.to_owned(), ..Self::of_code(code, message) },
            None => Self::of_code(code, format!("the answer was {}", code.name())),
        }
    }

    /// Whether whoever asks has to say who they are.
    pub(super) fn is_unauthenticated(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    /// For the message in a list of partial failures.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

/// What helps whoever has no right to something; the admin plane says the same.
const NO_RIGHT_HINT: &str = "a super user can add a rule for it: 'ottla acl add'";

/// What a right was wanting for, in words.
fn refused(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::TopicAuthorizationFailed => Some("you have no right to do this with this topic"),
        ErrorCode::GroupAuthorizationFailed => Some("you have no right to do this with this group"),
        ErrorCode::ClusterAuthorizationFailed => Some("you have no right to do this with the cluster"),
        _ => None,
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        let http = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::AlreadyExists | Code::FailedPrecondition => StatusCode::CONFLICT,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::Unavailable | Code::DeadlineExceeded => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let text = |key| status.metadata().get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let named = text("ottla-error-code");
        let code = (-1..200).map(ErrorCode::from_code).find(|code| code.name() == named);
        let code = code.unwrap_or(ErrorCode::UnknownServerError);
        let message = refused(code).unwrap_or(status.message()).to_owned();
        Self { status: http, code: code.name(), message, hint: text("ottla-hint").to_owned() }
    }
}

impl From<AskError> for ApiError {
    fn from(error: AskError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::BrokerNotAvailable, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "error": { "code": self.code, "message": self.message, "hint": self.hint }
        });
        (self.status, Json(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_admin_plane_keeps_its_code_and_hint() {
        let mut status = Status::new(Code::NotFound, "topic \"x\" does not exist");
        status.metadata_mut().insert("ottla-error-code", "UNKNOWN_TOPIC_OR_PARTITION".parse().unwrap());
        status.metadata_mut().insert("ottla-hint", "look".parse().unwrap());
        let error = ApiError::from(status);
        assert_eq!(
            (error.status, error.code, &*error.hint),
            (StatusCode::NOT_FOUND, "UNKNOWN_TOPIC_OR_PARTITION", "look")
        );
        assert_eq!(ApiError::from(Status::permission_denied("no")).status, StatusCode::FORBIDDEN);
    }
}
