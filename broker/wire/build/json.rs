//! Writes the view of messages as Kafka's JSON, which tests and tools use (feature `json`).

use std::fmt::Write;

use crate::emit::{Emitter, Struct, camel, ident};
use crate::schema::Type;

/// A function that finds a message by its name, for tests that go over all of them.
pub(crate) fn round_trip<'a>(out: &mut String, names: impl Iterator<Item = &'a str>) {
    out.push_str("/// Reads a message by name; gives its JSON and its bytes, written again. `None`: no such message.\n#[cfg(feature = \"json\")]\npub fn round_trip(name: &str, version: i16, bytes: bytes::Bytes) -> Option<Decoded<(serde_json::Value, bytes::Bytes)>> {\n    Some(match name {\n");
    for name in names {
        let _ =
            writeln!(out, "        \"{name}\" => crate::messages::round_trip_as::<{name}>(version, bytes),");
    }
    out.push_str("        _ => return None,\n    })\n}\n");
}

impl<'a> Emitter<'a> {
    pub(crate) fn write_json(&self, out: &mut String, item: &Struct<'a>) {
        out.push_str("        #[cfg(feature = \"json\")]\n        fn to_json(&self, version: i16) -> serde_json::Value {\n            let mut object = serde_json::Map::new();\n            let _ = version;\n");
        for field in item.fields {
            let value = format!("self.{}", ident(&field.name));
            let json = if field.is_nullable() {
                format!(
                    "match &{value} {{ Some(value) => {}, None => serde_json::Value::Null }}",
                    json(&field.kind, "value")
                )
            } else {
                let inner = json(&field.kind, "value");
                format!("{{ let value = &{value}; {inner} }}")
            };
            let insert = format!("object.insert(\"{}\".to_owned(), {json});", camel_lower(&field.name));
            // A tagged field at its default is left out, as on the wire.
            let set = field.tag.map(|_| match field.default.as_deref() {
                Some("null") => format!("{value}.is_some()"),
                _ => format!("{value} != {}", self.typed_default(field)),
            });
            let conditions: Vec<String> = self.condition(field.versions).into_iter().chain(set).collect();
            if conditions.is_empty() {
                let _ = writeln!(out, "            {insert}");
            } else {
                let _ = writeln!(out, "            if {} {{ {insert} }}", conditions.join(" && "));
            }
        }
        out.push_str("            serde_json::Value::Object(object)\n        }\n");
    }
}

/// `topic_data` -> `topicData`.
fn camel_lower(name: &str) -> String {
    let camel = camel(name);
    camel[..1].to_lowercase() + &camel[1..]
}

/// The JSON of a value.
fn json(kind: &Type, value: &str) -> String {
    match kind {
        Type::Boolean
        | Type::Int8
        | Type::Int16
        | Type::UInt16
        | Type::Int32
        | Type::UInt32
        | Type::Int64
        | Type::Float64 => {
            format!("serde_json::Value::from(*{value})")
        }
        Type::String => format!("serde_json::Value::from(&**{value})"),
        Type::Bytes => format!("crate::json::bytes({value})"),
        // Kafka's converters show no records.
        Type::Records => format!("{{ let _ = {value}; serde_json::Value::from(\"\") }}"),
        Type::Uuid => format!("crate::json::uuid(*{value})"),
        Type::Struct => format!("{value}.to_json(version)"),
        Type::Array(element) => {
            format!(
                "serde_json::Value::Array({value}.iter().map(|value| {}).collect())",
                json(element, "value")
            )
        }
    }
}
