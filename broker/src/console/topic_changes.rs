//! Creating, growing and deleting topics: the admin plane's commands, in the caller's name.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use ottla_proto::admin as proto;
use ottla_proto::admin::admin_server::Admin;
use ottla_wire::error_code::ErrorCode;
use serde_json::{Map, Value, json};

use super::Console;
use super::answer::{Answer, ApiError, Json};
use super::login::Caller;

/// Configs in one change.
pub(super) const CONFIGS_MAX: usize = 200;

/// A body that is a JSON object whose fields are all known.
pub(super) fn object(body: &Bytes, known: &[&str]) -> Result<Map<String, Value>, ApiError> {
    let value = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is no JSON: {error}")))?;
    let Value::Object(fields) = value else {
        return Err(ApiError::invalid("the body is no JSON object"));
    };
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => {
            Err(ApiError::invalid(format!("\"{name}\" is not known; there are: {}", known.join(", "))))
        }
        None => Ok(fields),
    }
}

/// A field that is text.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, ApiError> {
    let found = fields.get(name).and_then(Value::as_str);
    found.ok_or_else(|| ApiError::invalid(format!("\"{name}\" is not given as a text")))
}

/// A field that is a whole number or absent.
fn whole(fields: &Map<String, Value>, name: &str) -> Result<Option<i32>, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
            number.map(Some).ok_or_else(|| ApiError::invalid(format!("\"{name}\" is no whole number")))
        }
    }
}

/// A field that is true, false or absent.
pub(super) fn flag(fields: &Map<String, Value>, name: &str) -> Result<bool, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(ApiError::invalid(format!("\"{name}\" is neither true nor false"))),
    }
}

/// A field that holds texts by name, or is absent.
pub(super) fn texts(fields: &Map<String, Value>, name: &str) -> Result<HashMap<String, String>, ApiError> {
    let wrong = || ApiError::invalid(format!("\"{name}\" is no object of at most {CONFIGS_MAX} texts"));
    let Some(value) = fields.get(name).filter(|value| !value.is_null()) else { return Ok(HashMap::new()) };
    let object = value.as_object().filter(|object| object.len() <= CONFIGS_MAX).ok_or_else(wrong)?;
    let pair = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    object.iter().map(pair).collect::<Option<_>>().ok_or_else(wrong)
}

/// The outcome of a command for one topic.
fn outcome(result: Option<proto::TopicResult>) -> Answer {
    let result = result
        .ok_or_else(|| ApiError::of_code(ErrorCode::UnknownServerError, "the controller answered nothing"))?;
    if result.error_code != 0 {
        let code =
            i16::try_from(result.error_code).map_or(ErrorCode::UnknownServerError, ErrorCode::from_code);
        return Err(ApiError::of_code(code, result.message));
    }
    Ok(Json(json!({
        "name": result.name,
        "id": result.id,
        "partitions": result.partitions,
        "replication_factor": result.replication_factor,
    })))
}

/// `POST /topics` with `{"name", "partitions", "replication_factor", "configs", "validate_only"}`.
pub(super) async fn create(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    let known = ["name", "partitions", "replication_factor", "configs", "validate_only"];
    let fields = object(&body, &known)?;
    // To the admin plane 0 is the default; whoever writes 0 here means something else.
    let counted = |name, code| match whole(&fields, name)? {
        Some(count) if count < 1 => Err(ApiError::of_code(code, format!("\"{name}\" is at least 1"))),
        count => Ok(count.unwrap_or(-1)),
    };
    let topic = proto::NewTopic {
        name: text(&fields, "name")?.to_owned(),
        partitions: counted("partitions", ErrorCode::InvalidPartitions)?,
        replication_factor: counted("replication_factor", ErrorCode::InvalidReplicationFactor)?,
        assignments: Vec::new(),
        configs: texts(&fields, "configs")?,
    };
    let request =
        proto::CreateTopicsRequest { validate_only: flag(&fields, "validate_only")?, topics: vec![topic] };
    let reply = console.admin.create_topics(caller.request(request)).await?.into_inner();
    outcome(reply.topics.into_iter().next())
}

/// `DELETE /topics/{name}`.
pub(super) async fn delete(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    let request = proto::DeleteTopicsRequest { names: vec![name] };
    let reply = console.admin.delete_topics(caller.request(request)).await?.into_inner();
    outcome(reply.topics.into_iter().next())
}

/// `POST /topics/{name}/partitions` with `{"count", "validate_only"}`.
pub(super) async fn grow(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let fields = object(&body, &["count", "validate_only"])?;
    let count = whole(&fields, "count")?.ok_or_else(|| ApiError::invalid("\"count\" is not given"))?;
    let request = proto::CreatePartitionsRequest {
        validate_only: flag(&fields, "validate_only")?,
        name,
        count,
        assignments: Vec::new(),
    };
    let reply = console.admin.create_partitions(caller.request(request)).await?.into_inner();
    outcome(reply.topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_objects_of_known_fields() {
        let read = |text: &str| object(&Bytes::copy_from_slice(text.as_bytes()), &["name", "count"]);
        assert!(read(r#"{"name": "t"}"#).is_ok());
        for wrong in ["", "[]", "null", "{", r#"{"nam": 1}"#, "\u{1}", &"[".repeat(60_000)] {
            assert!(read(wrong).is_err(), "{wrong:.20}");
        }
        let fields = read(r#"{"name": 7, "count": 1e99}"#).unwrap();
        assert!(text(&fields, "name").is_err() && whole(&fields, "count").is_err());
        assert_eq!(whole(&fields, "none").unwrap(), None);
        assert!(texts(&fields, "name").is_err() && flag(&fields, "name").is_err());
    }
}
