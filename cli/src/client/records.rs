//! Records on their way in and out, and their form as JSON: one object a line, the same for `produce --json` and
//! `consume --json`. Bytes that are no UTF-8 are `{"base64": "…"}`, so that nothing is lost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// Bytes that a record takes beside its key, value and headers, about.
const RECORD_OVERHEAD_BYTES: usize = 24;

/// A record to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NewRecord {
    /// `None`: the partitioner chooses.
    pub(crate) partition: Option<i32>,
    /// `None`: the time of sending.
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(Bytes, Option<Bytes>)>,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consumed {
    pub(crate) topic: std::sync::Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(Bytes, Option<Bytes>)>,
}

impl NewRecord {
    /// About what it takes in a batch.
    pub(crate) fn bytes(&self) -> usize {
        let length = |field: Option<&Bytes>| field.map_or(0, Bytes::len);
        let headers: usize =
            self.headers.iter().map(|(key, value)| key.len() + length(value.as_ref()) + 4).sum();
        length(self.key.as_ref()) + length(self.value.as_ref()) + headers + RECORD_OVERHEAD_BYTES
    }

    /// Reads `{"key", "value", "headers", "partition", "timestamp_ms"}`; all may be absent, and what `consume` adds to them
    /// (`topic`, `offset`) is passed over, so that what one cluster gave another can take.
    pub(crate) fn from_json(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| format!("no JSON: {error}"))?;
        let Value::Object(fields) = value else { return Err("not a JSON object".to_owned()) };
        let mut record = Self::default();
        for (name, value) in fields {
            match name.as_str() {
                "key" => record.key = field(&value)?,
                "value" => record.value = field(&value)?,
                "headers" => record.headers = headers(&value)?,
                "partition" => {
                    let number = whole(&name, &value)?;
                    record.partition =
                        number.map(i32::try_from).transpose().map_err(|_| "partition is too large")?;
                }
                "timestamp_ms" => record.timestamp_ms = whole(&name, &value)?,
                "topic" | "offset" => {}
                _ => {
                    return Err(format!(
                        "\"{name}\" is not known; a record has key, value, headers, partition, timestamp_ms"
                    ));
                }
            }
        }
        Ok(record)
    }
}

impl Consumed {
    /// One line of `consume --json`.
    pub(crate) fn to_json(&self) -> Value {
        let headers: Vec<Value> = self
            .headers
            .iter()
            .map(|(key, value)| json!([shown(Some(key)), shown(value.as_ref())]))
            .collect();
        json!({
            "topic": &*self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp_ms": self.timestamp_ms,
            "key": shown(self.key.as_ref()),
            "value": shown(self.value.as_ref()),
            "headers": headers,
        })
    }
}

fn shown(bytes: Option<&Bytes>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => Value::from(text),
        Some((bytes, Err(_))) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// A string, null, `{"base64": …}`; any other JSON is taken as its own text, since that is what one means by a JSON value.
fn field(value: &Value) -> Result<Option<Bytes>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(Bytes::from(text.clone().into_bytes()))),
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("base64") => {
            let text = fields["base64"].as_str().ok_or("base64 is not a string")?;
            let bytes = STANDARD.decode(text).map_err(|error| format!("base64: {error}"))?;
            Ok(Some(bytes.into()))
        }
        other => Ok(Some(Bytes::from(other.to_string().into_bytes()))),
    }
}

fn whole(name: &str, value: &Value) -> Result<Option<i64>, String> {
    match value {
        Value::Null => Ok(None),
        other => other.as_i64().map(Some).ok_or_else(|| format!("{name} is not a whole number")),
    }
}

/// `[["k","v"],…]` or `{"k":"v",…}`.
fn headers(value: &Value) -> Result<Vec<(Bytes, Option<Bytes>)>, String> {
    let wrong = || "headers are pairs: [[\"k\",\"v\"],…]".to_owned();
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| Ok((Bytes::from(key.clone().into_bytes()), field(value)?)))
            .collect(),
        Value::Array(pairs) => pairs
            .iter()
            .map(|pair| match pair.as_array().map(Vec::as_slice) {
                Some([key, value]) => Ok((field(key)?.ok_or_else(wrong)?, field(value)?)),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumed() -> Consumed {
        Consumed {
            topic: "orders".into(),
            partition: 1,
            offset: 42,
            timestamp_ms: 1_700_000_000_000,
            key: Some("k".into()),
            value: None,
            headers: vec![("h".into(), Some(Bytes::from_static(b"\xff"))), ("h".into(), None)],
        }
    }

    #[test]
    fn a_record_is_one_object_with_the_promised_keys() {
        assert_eq!(
            consumed().to_json().to_string(),
            "{\"topic\":\"orders\",\"partition\":1,\"offset\":42,\"timestamp_ms\":1700000000000,\"key\":\"k\",\
             \"value\":null,\"headers\":[[\"h\",{\"base64\":\"/w==\"}],[\"h\",null]]}"
        );
    }

    #[test]
    fn what_was_read_can_be_written_again() {
        let read = consumed();
        let record = NewRecord::from_json(&read.to_json().to_string()).unwrap();
        assert_eq!((record.key, record.value, record.headers), (read.key, read.value, read.headers));
        assert_eq!((record.partition, record.timestamp_ms), (Some(1), Some(read.timestamp_ms)));
    }

    #[test]
    fn lines_that_are_no_records_are_refused() {
        for line in [
            "",
            "1",
            "[]",
            "{\"kez\":1}",
            "{\"partition\":\"a\"}",
            "{\"headers\":[1]}",
            "{\"key\":{\"base64\":\"?\"}}",
            "{\"partition\":4294967296}",
        ] {
            assert!(NewRecord::from_json(line).is_err(), "{line}");
        }
        assert_eq!(NewRecord::from_json("{}").unwrap(), NewRecord::default());
        assert_eq!(NewRecord::from_json("{\"value\":{\"a\":1}}").unwrap().value, Some("{\"a\":1}".into()));
    }
}
