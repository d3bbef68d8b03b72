//! Reads schema files; `schema/README.md` describes their notation.

/// A closed range of versions; the end of an open one is `i16::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) first: i16,
    pub(crate) last: i16,
}

impl Versions {
    pub(crate) const ALL: Self = Self { first: 0, last: i16::MAX };
    pub(crate) const NONE: Self = Self { first: i16::MAX, last: -1 };

    fn parse(text: &str) -> Result<Self, String> {
        let number = |t: &str| t.parse::<i16>().map_err(|_| format!("not a version: {t}"));
        if let Some(first) = text.strip_suffix('+') {
            return Ok(Self { first: number(first)?, last: i16::MAX });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Ok(Self { first: number(first)?, last: number(last)? })
    }

    pub(crate) fn contains_all(self, other: Self) -> bool {
        self.first <= other.first && self.last >= other.last
    }
}

/// One request, response or record.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) versions: Versions,
    pub(crate) flexible: Versions,
    pub(crate) fields: Vec<Field>,
}

/// A request and its response.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) key: i16,
    pub(crate) name: String,
    pub(crate) served: Versions,
    pub(crate) request: Message,
    pub(crate) response: Message,
}

/// A persisted record's key or value.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) key: i16,
    pub(crate) message: Message,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    Boolean,
    Int8,
    Int16,
    UInt16,
    Int32,
    UInt32,
    Int64,
    Float64,
    String,
    Bytes,
    Records,
    Uuid,
    Struct,
    Array(Box<Type>),
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Type,
    pub(crate) versions: Versions,
    /// Versions in which the value may be null; `NONE` for never.
    pub(crate) nullable: Versions,
    pub(crate) tag: Option<u32>,
    pub(crate) default: Option<String>,
    pub(crate) fields: Vec<Field>,
}

impl Field {
    pub(crate) fn is_nullable(&self) -> bool {
        self.nullable != Versions::NONE
    }
}

/// Lines that count, with their indentation.
fn lines(text: &str) -> Vec<(usize, &str)> {
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|line| (line.len() - line.trim_start().len(), line.trim()))
        .collect()
}

pub(crate) fn parse_api(text: &str) -> Result<Api, String> {
    let lines = lines(text);
    let mut at = 0;
    let mut next = || {
        let line = lines.get(at).copied().ok_or("the file ends early")?;
        at += 1;
        Ok::<_, String>(line.1)
    };
    let head: Vec<&str> = next()?.split(' ').collect();
    let ["api", key, name] = head[..] else { return Err("the first line is 'api KEY NAME'".into()) };
    let served = next()?.strip_prefix("served ").ok_or("the second line is 'served FIRST-LAST'")?;
    let served = Versions::parse(served)?;
    let (request, at) = parse_message(&lines, 2, "request", &format!("{name}Request"))?;
    let (response, at) = parse_message(&lines, at, "response", &format!("{name}Response"))?;
    if at != lines.len() {
        return Err(format!("not understood: {}", lines[at].1));
    }
    let key = key.parse().map_err(|_| format!("not a key: {key}"))?;
    Ok(Api { key, name: name.to_owned(), served, request, response })
}

pub(crate) fn parse_records(text: &str) -> Result<Vec<Record>, String> {
    let lines = lines(text);
    let mut at = 0;
    let mut out = Vec::new();
    while at < lines.len() {
        let head: Vec<&str> = lines[at].1.split_whitespace().collect();
        let ["record", key, name, ..] = head[..] else {
            return Err(format!("not a record: {}", lines[at].1));
        };
        let key = key.parse().map_err(|_| format!("not a key: {key}"))?;
        let (message, end) = parse_message(&lines, at, "record", name)?;
        out.push(Record { key, message });
        at = end;
    }
    Ok(out)
}

fn parse_message(
    lines: &[(usize, &str)],
    at: usize,
    word: &str,
    name: &str,
) -> Result<(Message, usize), String> {
    let (_, head) = lines.get(at).ok_or("the file ends early")?;
    if !head.starts_with(word) {
        return Err(format!("expected '{word}', found: {head}"));
    }
    let after = |label: &str| {
        let mut words = head.split_whitespace();
        words.find(|w| *w == label).and_then(|_| words.next())
    };
    let versions = Versions::parse(after("versions").ok_or("no versions")?)?;
    let flexible = after("flexible").map_or(Ok(Versions::NONE), Versions::parse)?;
    let (fields, end) = parse_fields(lines, at + 1, 2)?;
    Ok((Message { name: name.to_owned(), versions, flexible, fields }, end))
}

fn parse_fields(
    lines: &[(usize, &str)],
    mut at: usize,
    indent: usize,
) -> Result<(Vec<Field>, usize), String> {
    let mut fields = Vec::new();
    while let Some((here, line)) = lines.get(at) {
        if *here < indent {
            break;
        }
        if *here > indent {
            return Err(format!("too deep: {line}"));
        }
        let mut field = parse_field(line).map_err(|e| format!("{e}: {line}"))?;
        (field.fields, at) = parse_fields(lines, at + 1, indent + 2)?;
        fields.push(field);
    }
    Ok((fields, at))
}

fn parse_field(line: &str) -> Result<Field, String> {
    let (name, rest) = line.split_once(": ").ok_or("a field is 'name: type'")?;
    let mut words = rest.split_whitespace();
    let word = words.next().ok_or("a type is missing")?;
    let (word, nullable) = match word.split_once('?') {
        None => (word, Versions::NONE),
        Some((word, "")) => (word, Versions::ALL),
        Some((word, range)) => (word, Versions::parse(range.trim_start_matches('(').trim_end_matches(')'))?),
    };
    let mut field = Field {
        name: name.to_owned(),
        kind: parse_type(word)?,
        versions: Versions::ALL,
        nullable,
        tag: None,
        default: None,
        fields: Vec::new(),
    };
    for word in words {
        if let Some(tag) = word.strip_prefix("tag=") {
            field.tag = Some(tag.parse().map_err(|_| "not a tag")?);
        } else if let Some(default) = word.strip_prefix("default=") {
            field.default = Some(default.to_owned());
        } else if let Some(versions) = word.strip_prefix('v') {
            field.versions = Versions::parse(versions)?;
        } else {
            return Err(format!("not understood: {word}"));
        }
    }
    if field.default.as_deref() == Some("null") && !field.is_nullable() {
        field.nullable = Versions::ALL;
    }
    Ok(field)
}

fn parse_type(word: &str) -> Result<Type, String> {
    Ok(match word {
        "boolean" => Type::Boolean,
        "int8" => Type::Int8,
        "int16" => Type::Int16,
        "uint16" => Type::UInt16,
        "int32" => Type::Int32,
        "uint32" => Type::UInt32,
        "int64" => Type::Int64,
        "float64" => Type::Float64,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "records" => Type::Records,
        "uuid" => Type::Uuid,
        "struct" => Type::Struct,
        _ => match word.strip_prefix("[]") {
            Some(element) => Type::Array(Box::new(parse_type(element)?)),
            None => return Err(format!("not a type: {word}")),
        },
    })
}
