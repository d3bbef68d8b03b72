//! Which messages are shown: by a part of key, value or a header, as text, as hexadecimal bytes, or by a field of a JSON document.

use bytes::Bytes;
use ottla_wire::records::Record;
use serde_json::Value;

use super::answer::ApiError;
use super::parameters::Parameters;

/// What a message must have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    key: Option<Pattern>,
    value: Option<Pattern>,
    header: Option<Header>,
}

/// A header of this name; with a value: one that has this in it, as text.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    name: String,
    value: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    /// These bytes somewhere in it.
    Bytes(Vec<u8>),
    /// A JSON document whose field at this path is this: as text, or as JSON shows it.
    Field(Vec<String>, String),
}

impl Filter {
    /// Reads `key`, `value` and `as`: `text`, `hex` or `json` (`path.to.field=wanted`); `header`: `name` or `name=value`.
    pub(super) fn read(parameters: &Parameters) -> Result<Self, ApiError> {
        let kind = parameters.word("as", &["text", "hex", "json"])?;
        let pattern = |name| parameters.text(name).map(|text| Pattern::read(kind, text)).transpose();
        let header = parameters.text("header").map(Header::read).transpose()?;
        Ok(Self { key: pattern("key")?, value: pattern("value")?, header })
    }

    /// Whether everything passes.
    pub(super) fn is_empty(&self) -> bool {
        self.key.is_none() && self.value.is_none() && self.header.is_none()
    }

    /// Whether a record passes.
    pub(super) fn fits(&self, record: &Record) -> bool {
        let fits = |pattern: &Option<Pattern>, field: &Option<Bytes>| {
            pattern.as_ref().is_none_or(|pattern| field.as_ref().is_some_and(|field| pattern.fits(field)))
        };
        fits(&self.key, &record.key)
            && fits(&self.value, &record.value)
            && self.header.as_ref().is_none_or(|header| header.fits(record))
    }
}

impl Header {
    fn read(text: &str) -> Result<Self, ApiError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.trim().is_empty() {
            return Err(ApiError::invalid("a filter of headers is name or name=value"));
        }
        Ok(Self { name: name.trim().to_owned(), value })
    }

    fn fits(&self, record: &Record) -> bool {
        let mut named = record.headers.iter().filter(|header| *header.key == *self.name.as_bytes());
        named.any(|header| {
            let value = header.value.as_deref();
            self.value
                .as_deref()
                .is_none_or(|wanted| value.is_some_and(|value| contains(value, wanted.as_bytes())))
        })
    }
}

impl Pattern {
    fn read(kind: &str, text: &str) -> Result<Self, ApiError> {
        match kind {
            "hex" => bytes_of_hex(text).map(Self::Bytes).ok_or_else(|| {
                ApiError::invalid("a filter as hex is pairs of hexadecimal digits, such as 00 ff")
            }),
            "json" => {
                let (path, wanted) = text
                    .split_once('=')
                    .filter(|(path, _)| !path.trim().is_empty())
                    .ok_or_else(|| ApiError::invalid("a filter as json is path.to.field=wanted"))?;
                let path = path.trim().trim_start_matches("$.").split('.').map(str::to_owned).collect();
                Ok(Self::Field(path, wanted.trim().to_owned()))
            }
            _ => Ok(Self::Bytes(text.as_bytes().to_vec())),
        }
    }

    fn fits(&self, field: &[u8]) -> bool {
        match self {
            Self::Bytes(wanted) => contains(field, wanted),
            Self::Field(path, wanted) => {
                let Ok(document) = serde_json::from_slice::<Value>(field) else { return false };
                let found = path.iter().try_fold(&document, |value, name| match value {
                    Value::Array(items) => items.get(name.parse::<usize>().ok()?),
                    other => other.get(name),
                });
                match found {
                    Some(Value::String(text)) => text == wanted,
                    Some(other) => {
                        let shown = other.to_string();
                        shown == *wanted
                    }
                    None => false,
                }
            }
        }
    }
}

fn contains(field: &[u8], wanted: &[u8]) -> bool {
    let Some(first) = wanted.first() else { return true };
    let mut rest = field;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(wanted) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .map(|letter| letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let is_whole = digits.len() >= 2 && digits.len().is_multiple_of(2);
    is_whole.then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(kind: &str, text: &str, field: &[u8]) -> bool {
        Pattern::read(kind, text).unwrap().fits(field)
    }

    #[test]
    fn a_part_is_found_wherever_it_stands() {
        assert!(fits("text", "aab", b"xaaab") && fits("text", "ä", "bär".as_bytes()));
        assert!(!fits("text", "aab", b"aa") && !fits("text", "A", b"a"));
        assert!(fits("hex", "00 FF", &[1, 0, 255]) && !fits("hex", "00ff", &[0, 1, 255]));
        for wrong in ["0", "0g", "", "00f"] {
            assert!(Pattern::read("hex", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_is_found_by_its_name_and_a_part_of_its_value() {
        use ottla_wire::records::RecordHeader as Given;
        let header = |key: &'static str, value: Option<&'static str>| Given {
            key: Bytes::from_static(key.as_bytes()),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
        };
        let headers = vec![header("trace", Some("a=b1")), header("trace", Some("c2")), header("empty", None)];
        let record = Record { offset: 0, timestamp: 0, key: None, value: None, headers };
        for good in ["trace", "trace=a=b", "trace=2", " trace =c", "empty", "trace="] {
            assert!(Header::read(good).unwrap().fits(&record), "{good}");
        }
        for other in ["trac", "Trace", "trace=d", "empty=x", "a=b1"] {
            assert!(!Header::read(other).unwrap().fits(&record), "{other}");
        }
        assert!(Header::read("=x").is_err() && Header::read("  ").is_err());
    }

    #[test]
    fn a_field_is_found_by_its_path() {
        let document = br#"{"user": {"id": 42, "name": "Ada", "tags": ["x", null]}}"#;
        assert!(fits("json", "user.id=42", document) && fits("json", "$.user.name=Ada", document));
        assert!(fits("json", "user.tags.0=x", document) && fits("json", "user.tags.1=null", document));
        assert!(!fits("json", "user.id=4", document) && !fits("json", "user=1", document));
        assert!(!fits("json", "a=1", b"no json") && !fits("json", "a=1", &b"[".repeat(100_000)));
        assert!(Pattern::read("json", "=1").is_err() && Pattern::read("json", "a").is_err());
    }
}
