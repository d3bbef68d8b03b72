//! What clients push: OpenTelemetry's metrics in its protobuf form, of which the numbers are kept. Only the fields that are
//! used are described here; the numbers are those of `opentelemetry/proto/metrics/v1/metrics.proto`.

use std::collections::HashMap;
use std::fmt::Write as _;

use bytes::Bytes;
use prost::Message as _;

/// Series of one client that are kept; what comes beyond is passed over.
const SERIES_MAX: usize = 500;
/// Attributes of one series that are kept.
const ATTRIBUTES_MAX: usize = 8;
/// Characters of a name or value that are kept.
const TEXT_LENGTH_MAX: usize = 128;

#[derive(Clone, PartialEq, prost::Message)]
struct MetricsData {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceMetrics {
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeMetrics {
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "5")]
    gauge: Option<Points>,
    #[prost(message, optional, tag = "7")]
    sum: Option<Points>,
}

/// A gauge or a sum.
#[derive(Clone, PartialEq, prost::Message)]
struct Points {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<NumberDataPoint>,
    /// Of sums only: 1 is the difference to the last push, 2 the whole.
    #[prost(int32, tag = "2")]
    aggregation_temporality: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NumberDataPoint {
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
    #[prost(oneof = "Number", tags = "4, 6")]
    value: Option<Number>,
}

#[derive(Clone, Copy, PartialEq, prost::Oneof)]
enum Number {
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(sfixed64, tag = "6")]
    Integer(i64),
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3, 4")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Integer(i64),
    #[prost(double, tag = "4")]
    Double(f64),
}

/// A sum of differences.
const DELTA: i32 = 1;

/// One series of a client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Series {
    pub(super) value: f64,
    /// The value is to be added to what came before.
    is_delta: bool,
}

/// Series by their labels, as the metrics page writes them.
pub(super) fn read(bytes: Bytes) -> Result<Vec<(String, Series)>, prost::DecodeError> {
    let data = MetricsData::decode(bytes)?;
    let scopes = data.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
    let mut found = Vec::new();
    for metric in scopes.flat_map(|scope| scope.metrics) {
        let gauge = metric.gauge.into_iter().map(|gauge| (gauge, false));
        let sum = metric.sum.into_iter().map(|sum| {
            let is_delta = sum.aggregation_temporality == DELTA;
            (sum, is_delta)
        });
        for (points, is_delta) in gauge.chain(sum) {
            for point in points.data_points {
                let value = match point.value {
                    Some(Number::Double(value)) => value,
                    Some(Number::Integer(value)) => value as f64,
                    None => continue,
                };
                if found.len() == SERIES_MAX {
                    return Ok(found);
                }
                found.push((labels(&metric.name, &point.attributes), Series { value, is_delta }));
            }
        }
    }
    Ok(found)
}

/// Takes over what came.
pub(super) fn merge(known: &mut HashMap<String, Series>, received: Vec<(String, Series)>) {
    for (labels, series) in received {
        if let Some(before) = known.get_mut(&labels) {
            before.value = if series.is_delta { before.value + series.value } else { series.value };
        } else if known.len() < SERIES_MAX {
            known.insert(labels, series);
        }
    }
}

fn labels(name: &str, attributes: &[KeyValue]) -> String {
    let mut text = format!("metric=\"{}\"", escaped(name));
    for attribute in attributes.iter().take(ATTRIBUTES_MAX) {
        let key: String = attribute
            .key
            .chars()
            .take(TEXT_LENGTH_MAX)
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        let value = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Any::Text(text)) => text.clone(),
            Some(Any::Bool(value)) => value.to_string(),
            Some(Any::Integer(value)) => value.to_string(),
            Some(Any::Double(value)) => value.to_string(),
            None => continue,
        };
        // Under a prefix of its own: a client's name must not stand for one of ours. Writing to a text cannot fail.
        let _ = write!(text, ",attribute_{key}=\"{}\"", escaped(&value));
    }
    text
}

/// A text as the value of a label.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars().take(TEXT_LENGTH_MAX) {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
pub(super) fn gauge_of(name: &str, value: f64) -> Bytes {
    sum_of(name, value, None)
}

/// A push with one number; with a temporality a sum, otherwise a gauge.
#[cfg(test)]
pub(super) fn sum_of(name: &str, value: f64, temporality: Option<i32>) -> Bytes {
    let attributes = vec![KeyValue {
        key: "node.id".into(),
        value: Some(AnyValue { value: Some(Any::Text("a\"b".into())) }),
    }];
    let point = NumberDataPoint { attributes, value: Some(Number::Double(value)) };
    let points =
        Points { data_points: vec![point], aggregation_temporality: temporality.unwrap_or_default() };
    let (gauge, sum) = if temporality.is_some() { (None, Some(points)) } else { (Some(points), None) };
    let metric = Metric { name: name.into(), gauge, sum };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric] }];
    MetricsData { resource_metrics: vec![ResourceMetrics { scope_metrics }] }.encode_to_vec().into()
}
