//! Block-style YAML 1.2 of a JSON value. A string is written plain only when no YAML reader, of 1.1 or 1.2, could take it for
//! anything else; everything else is written double-quoted, where JSON's escapes are YAML's.

use serde_json::Value;

/// The document, with a line's end.
pub(crate) fn emit(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut out),
        Value::Object(fields) if !fields.is_empty() => mapping(fields, 0, &mut out),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

fn sequence(items: &[Value], depth: usize, out: &mut String) {
    for item in items {
        indent(depth, out);
        out.push('-');
        match item {
            // The first field of a mapping stands behind the dash.
            Value::Object(fields) if !fields.is_empty() => {
                let mut nested = String::new();
                mapping(fields, depth + 1, &mut nested);
                out.push(' ');
                out.push_str(nested.trim_start_matches(' '));
            }
            other => nested(other, depth, out),
        }
    }
}

fn mapping(fields: &serde_json::Map<String, Value>, depth: usize, out: &mut String) {
    for (name, value) in fields {
        indent(depth, out);
        out.push_str(&text(name));
        out.push(':');
        nested(value, depth, out);
    }
}

fn nested(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            sequence(items, depth + 1, out);
        }
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            mapping(fields, depth + 1, out);
        }
        other => {
            out.push(' ');
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
}

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        // null, true, numbers, [] and {} are the same in both languages.
        other => other.to_string(),
    }
}

fn text(string: &str) -> String {
    if is_plain(string) { string.to_owned() } else { Value::from(string).to_string() }
}

/// A narrow rule on purpose: begins with a letter, holds only what has no meaning in YAML, is no word with a meaning.
fn is_plain(string: &str) -> bool {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    string.starts_with(|first: char| first.is_ascii_alphabetic())
        && string.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
        && !WORDS.contains(&string.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mappings_and_sequences_nest() {
        let value =
            json!({"topics": [{"name": "orders", "isr": [1, 2]}, {"name": "x", "isr": []}], "all": true});
        let expected = "topics:\n  - name: orders\n    isr:\n      - 1\n      - 2\n  - name: x\n    isr: []\nall: true\n";
        assert_eq!(emit(&value), expected);
    }

    #[test]
    fn sequences_in_sequences_and_bare_values() {
        assert_eq!(emit(&json!([[1], "a", {}])), "-\n  - 1\n- a\n- {}\n");
        assert_eq!(emit(&json!(null)), "null\n");
        assert_eq!(emit(&json!({})), "{}\n");
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_quoted() {
        for string in [
            "",
            "1",
            "1.5",
            "no",
            "Yes",
            "null",
            "a: b",
            "- a",
            "#x",
            "a b",
            "127.0.0.1:9092",
            "~",
            "é",
            "a\nb",
            "0x1",
            ".5",
        ] {
            let shown = text(string);
            assert!(shown.starts_with('"'), "{string:?} became {shown}");
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), string);
        }
        assert_eq!(text("cleanup.policy"), "cleanup.policy");
    }
}
