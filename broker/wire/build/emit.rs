//! Writes the Rust code of messages: one module a message, one struct a level.

use std::collections::HashSet;
use std::fmt::Write;

use crate::json::round_trip;
use crate::schema::{Api, Field, Message, Record, Type, Versions};

/// `topic_data` -> `TopicData`.
pub(crate) fn camel(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// `partition_responses` -> `PartitionResponse`.
fn singular(name: &str) -> String {
    let name = camel(name);
    match name.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None if name.ends_with("ss") => name,
        None if name.ends_with("tches") => name.trim_end_matches("es").to_owned(),
        None => name.strip_suffix('s').map_or(name.clone(), str::to_owned),
    }
}

/// `ProduceRequest` -> `produce_request`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

pub(crate) fn ident(name: &str) -> String {
    if matches!(name, "type" | "match" | "ref") { format!("r#{name}") } else { name.to_owned() }
}

/// The variable that holds a field while its struct is read; never one that the generated code has for itself.
fn local(name: &str) -> String {
    if matches!(name, "version" | "flexible" | "decoder" | "tags" | "tag") {
        format!("{name}_field")
    } else {
        ident(name)
    }
}

pub(crate) fn messages(apis: &[Api]) -> String {
    let mut out = String::new();
    for api in apis {
        for message in [&api.request, &api.response] {
            module(&mut out, message, &format!("{} of API {}.", message.name, api.key));
        }
        let _ = writeln!(
            out,
            "impl Request for {0}Request {{ type Response = {0}Response; const KEY: ApiKey = ApiKey::{0}; }}",
            api.name
        );
    }
    let names =
        apis.iter().flat_map(|api| [&api.request, &api.response]).map(|message| message.name.as_str());
    round_trip(&mut out, names);
    out
}

pub(crate) fn persisted(records: &[Record]) -> String {
    let mut out = String::new();
    for record in records {
        module(
            &mut out,
            &record.message,
            &format!("{}, a persisted record of type {}.", record.message.name, record.key),
        );
        let Versions { first, last } = record.message.versions;
        let _ = writeln!(
            out,
            "impl Persisted for {} {{ const TYPE: i16 = {}; const VERSIONS: std::ops::RangeInclusive<i16> = {first}..={last}; }}",
            record.message.name, record.key
        );
    }
    round_trip(&mut out, records.iter().map(|record| record.message.name.as_str()));
    out
}

pub(crate) fn api_keys(apis: &[Api]) -> String {
    let mut out = String::from(
        "/// Every API of Kafka's broker listener, by its key on the wire.\n#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[repr(i16)]\npub enum ApiKey {\n",
    );
    for api in apis {
        let _ = writeln!(out, "    /// {0}, key {1}.\n    {0} = {1},", api.name, api.key);
    }
    out.push_str("}\n\nstatic TABLE: &[Api] = &[\n");
    for api in apis {
        let _ = writeln!(
            out,
            "    Api {{ key: ApiKey::{0}, name: \"{0}\", first: {1}, last: {2}, flexible_from: {3} }},",
            api.name, api.served.first, api.served.last, api.request.flexible.first
        );
    }
    out.push_str("];\n");
    out
}

/// A struct to write: its name and where its fields stand.
pub(crate) struct Struct<'a> {
    name: String,
    pub(crate) fields: &'a [Field],
}

/// Writes the structs of one message.
pub(crate) struct Emitter<'a> {
    message: &'a Message,
    structs: Vec<Struct<'a>>,
    names: HashSet<String>,
    by_fields: Vec<(*const Field, String)>,
}

fn module(out: &mut String, message: &Message, doc: &str) {
    let mut emitter = Emitter { message, structs: Vec::new(), names: HashSet::new(), by_fields: Vec::new() };
    emitter.names.insert(message.name.clone());
    emitter.structs.push(Struct { name: message.name.clone(), fields: &message.fields });
    emitter.collect(&message.fields, "");
    let module = snake(&message.name);
    let allow =
        "#[allow(clippy::all, clippy::pedantic, reason = \"generated: uniform rather than minimal\")]";
    let _ = writeln!(out, "/// {doc}\n{allow}\npub mod {module} {{\n    use super::generated::*;");
    for item in &emitter.structs {
        emitter.write_struct(out, item);
    }
    out.push_str("}\n");
    let _ = writeln!(out, "pub use {module}::{};", message.name);
}

/// The least bytes that an element takes on the wire in any version: what bounds an array's count.
fn element_least(field: &Field, kind: &Type, message: Versions) -> usize {
    match kind {
        Type::Boolean | Type::Int8 => 1,
        Type::Int16 | Type::UInt16 => 2,
        Type::Int32 | Type::UInt32 => 4,
        Type::Int64 | Type::Float64 => 8,
        Type::Uuid => 16,
        // A compact length of one byte, or the marker of a nullable struct.
        Type::String | Type::Bytes | Type::Records | Type::Array(_) => 1,
        Type::Struct => {
            let always = field
                .fields
                .iter()
                .filter(|below| below.tag.is_none() && below.versions.contains_all(message));
            let least: usize = always
                .map(|below| {
                    if below.kind == Type::Struct && below.is_nullable() {
                        1
                    } else {
                        element_least(below, &below.kind, message)
                    }
                })
                .sum();
            least.max(1)
        }
    }
}

fn element(kind: &Type) -> &Type {
    match kind {
        Type::Array(element) => element,
        other => other,
    }
}

impl<'a> Emitter<'a> {
    /// Names every struct: those of one level before those below, so that the outer one gets the short name.
    fn collect(&mut self, fields: &'a [Field], parent: &str) {
        let mut below = Vec::new();
        for field in fields.iter().filter(|field| *element(&field.kind) == Type::Struct) {
            let mut name =
                if matches!(field.kind, Type::Array(_)) { singular(&field.name) } else { camel(&field.name) };
            if !self.names.insert(name.clone()) {
                name = format!("{parent}{name}");
                assert!(self.names.insert(name.clone()), "{name} stands twice in {}", self.message.name);
            }
            self.by_fields.push((std::ptr::from_ref(field), name.clone()));
            self.structs.push(Struct { name: name.clone(), fields: &field.fields });
            below.push((field, name));
        }
        for (field, name) in below {
            self.collect(&field.fields, &name);
        }
    }

    fn struct_name(&self, field: &Field) -> &str {
        let found = self.by_fields.iter().find(|(at, _)| std::ptr::eq(*at, field));
        &found.expect("every struct was collected").1
    }

    fn plain_type(&self, kind: &Type, field: &Field) -> String {
        match kind {
            Type::Boolean => "bool".into(),
            Type::Int8 => "i8".into(),
            Type::Int16 => "i16".into(),
            Type::UInt16 => "u16".into(),
            Type::Int32 => "i32".into(),
            Type::UInt32 => "u32".into(),
            Type::Int64 => "i64".into(),
            Type::Float64 => "f64".into(),
            Type::String => "Text".into(),
            Type::Bytes => "Bytes".into(),
            Type::Records => "Records".into(),
            Type::Uuid => "Uuid".into(),
            Type::Struct => self.struct_name(field).to_owned(),
            Type::Array(element) => format!("Vec<{}>", self.plain_type(element, field)),
        }
    }

    fn field_type(&self, field: &Field) -> String {
        let plain = self.plain_type(&field.kind, field);
        if field.is_nullable() { format!("Option<{plain}>") } else { plain }
    }

    fn default(field: &Field) -> String {
        match (field.default.as_deref(), &field.kind) {
            (Some("null"), _) => "None".into(),
            (Some(text), Type::String) => format!("Text::from_static(\"{}\")", text.trim_matches('"')),
            (Some(number), _) => {
                if field.is_nullable() {
                    format!("Some({number})")
                } else {
                    number.to_owned()
                }
            }
            // A nullable field without a default is empty, not null, in Kafka; null only by `default=null`.
            (None, _) if field.is_nullable() => "Some(Default::default())".into(),
            (None, _) => "Default::default()".into(),
        }
    }

    /// The condition under which a field is on the wire; `None`: always.
    pub(crate) fn condition(&self, versions: Versions) -> Option<String> {
        let all = self.message.versions;
        if versions.contains_all(all) {
            return None;
        }
        let after = versions.first > all.first;
        let before = versions.last < all.last;
        Some(match (after, before) {
            (true, true) if versions.first == versions.last => format!("version == {}", versions.first),
            (true, true) => format!("({}..={}).contains(&version)", versions.first, versions.last),
            (true, false) => format!("version >= {}", versions.first),
            (false, true) => format!("version <= {}", versions.last),
            (false, false) => "true".into(),
        })
    }

    fn flexible(&self) -> String {
        let flexible = self.message.flexible;
        if flexible == Versions::NONE {
            return "false".into();
        }
        self.condition(Versions { first: flexible.first, last: i16::MAX }).unwrap_or_else(|| "true".into())
    }

    fn write_struct(&self, out: &mut String, item: &Struct<'a>) {
        let name = &item.name;
        let is_message = *name == self.message.name;
        let _ = writeln!(
            out,
            "    /// {}\n    #[derive(Debug, Clone, PartialEq)]\n    pub struct {name} {{",
            self.struct_doc(item)
        );
        for field in item.fields {
            let doc = self.field_doc(field);
            let _ = writeln!(
                out,
                "        /// {doc}\n        pub {}: {},",
                ident(&field.name),
                self.field_type(field)
            );
        }
        let _ = writeln!(
            out,
            "    }}\n    impl Default for {name} {{\n        fn default() -> Self {{\n            Self {{"
        );
        for field in item.fields {
            let _ = writeln!(out, "                {}: {},", ident(&field.name), Self::default(field));
        }
        out.push_str("            }\n        }\n    }\n");
        let open = if is_message {
            format!("    impl Message for {name} {{")
        } else {
            format!("    impl {name} {{")
        };
        let _ = writeln!(out, "{open}");
        self.write_decode(out, item);
        self.write_encode(out, item);
        self.write_json(out, item);
        out.push_str("    }\n");
    }

    fn struct_doc(&self, item: &Struct<'a>) -> String {
        let Versions { first, last } = self.message.versions;
        if item.name == self.message.name {
            return format!("`{}`, versions {first} to {last}.", item.name);
        }
        format!("Part of `{}`.", self.message.name)
    }

    /// Where the field is on the wire and what it is elsewhere.
    fn field_doc(&self, field: &Field) -> String {
        let kind = match &field.kind {
            Type::Array(element) => format!("Array of `{element:?}`"),
            kind => format!("`{kind:?}`"),
        };
        let all = self.message.versions;
        let versions = match (field.versions.first > all.first, field.versions.last < all.last) {
            (false, false) => "all versions".to_owned(),
            (_, false) => format!("versions from {}", field.versions.first),
            (_, true) => {
                format!("versions {} to {}", field.versions.first.max(all.first), field.versions.last)
            }
        };
        let tag = field.tag.map_or(String::new(), |tag| format!(", tag {tag}"));
        let null = if field.is_nullable() { ", may be null" } else { "" };
        let default = field.default.as_ref().map_or(String::new(), |default| format!(", default {default}"));
        format!("{kind}, {versions}{tag}{null}{default}.")
    }

    fn write_decode(&self, out: &mut String, item: &Struct<'a>) {
        let flexible = self.flexible();
        let _ = writeln!(
            out,
            "        fn decode(decoder: &mut Decoder, version: i16) -> Decoded<Self> {{\n            let flexible = {flexible};\n            let _ = (version, flexible);"
        );
        if item.name == self.message.name {
            let Versions { first, last } = self.message.versions;
            let _ = writeln!(
                out,
                "            if !({first}..={last}).contains(&version) {{ return Err(DecodeError::UnsupportedVersion(version)); }}"
            );
        }
        for field in item.fields {
            let name = local(&field.name);
            if field.tag.is_some() {
                let _ = writeln!(out, "            let mut {name} = {};", self.typed_default(field));
                continue;
            }
            let read = self.read(field);
            match self.condition(field.versions) {
                None => {
                    let _ = writeln!(out, "            let {name} = {read};");
                }
                Some(condition) => {
                    let _ = writeln!(
                        out,
                        "            let {name} = if {condition} {{ {read} }} else {{ {} }};",
                        Self::default(field)
                    );
                }
            }
        }
        if flexible != "false" {
            let tagged: Vec<&Field> = item.fields.iter().filter(|field| field.tag.is_some()).collect();
            if tagged.is_empty() {
                out.push_str("            if flexible { decoder.skip_tagged_fields()?; }\n");
            } else {
                out.push_str("            if flexible {\n                let mut tags = decoder.tagged_fields()?;\n                while let Some(tag) = tags.next(decoder)? {\n                    match tag {\n");
                for field in tagged {
                    let guard = self.condition(field.versions).map_or(String::new(), |c| format!(" if {c}"));
                    let _ = writeln!(
                        out,
                        "                        {}{guard} => {{ {} = {}; tags.end(decoder)?; }}",
                        field.tag.unwrap_or(0),
                        local(&field.name),
                        self.read(field)
                    );
                }
                out.push_str("                        _ => tags.skip(decoder)?,\n                    }\n                }\n            }\n");
            }
        }
        let names: Vec<String> = item
            .fields
            .iter()
            .map(|field| format!("{}: {}", ident(&field.name), local(&field.name)))
            .collect();
        let _ = writeln!(out, "            Ok(Self {{ {} }})\n        }}", names.join(", "));
    }

    pub(crate) fn typed_default(&self, field: &Field) -> String {
        let default = Self::default(field);
        if default == "Default::default()" || default == "None" || default.starts_with("Some(Def") {
            format!("{{ let default: {} = {default}; default }}", self.field_type(field))
        } else {
            default
        }
    }

    /// Reads a field that is on the wire.
    fn read(&self, field: &Field) -> String {
        let nullable = field.is_nullable();
        let call = match &field.kind {
            Type::Boolean => "decoder.boolean()?".into(),
            Type::Int8 => "decoder.i8()?".into(),
            Type::Int16 => "decoder.i16()?".into(),
            Type::UInt16 => "decoder.u16()?".into(),
            Type::Int32 => "decoder.i32()?".into(),
            Type::UInt32 => "decoder.u32()?".into(),
            Type::Int64 => "decoder.i64()?".into(),
            Type::Float64 => "decoder.f64()?".into(),
            Type::Uuid => "decoder.uuid()?".into(),
            Type::String if nullable => "decoder.nullable_text(flexible)?".into(),
            Type::String => "decoder.text(flexible)?".into(),
            Type::Bytes if nullable => "decoder.nullable_bytes(flexible)?".into(),
            Type::Bytes => "decoder.bytes(flexible)?".into(),
            Type::Records if nullable => "decoder.nullable_bytes(flexible)?.map(Records::Bytes)".into(),
            Type::Records => "Records::Bytes(decoder.bytes(flexible)?)".into(),
            Type::Struct if nullable => {
                let is_present = if field.tag.is_some() { "is_present_tagged" } else { "is_present" };
                format!(
                    "if decoder.{is_present}()? {{ Some({}::decode(decoder, version)?) }} else {{ None }}",
                    self.struct_name(field)
                )
            }
            Type::Struct => format!("{}::decode(decoder, version)?", self.struct_name(field)),
            Type::Array(element) => {
                let read = match element.as_ref() {
                    Type::Struct => format!("{}::decode(decoder, version)", self.struct_name(field)),
                    Type::String => "decoder.text(flexible)".into(),
                    Type::Int8 => "decoder.i8()".into(),
                    Type::Int16 => "decoder.i16()".into(),
                    Type::Int32 => "decoder.i32()".into(),
                    Type::Int64 => "decoder.i64()".into(),
                    Type::Uuid => "decoder.uuid()".into(),
                    Type::Bytes => "decoder.bytes(flexible)".into(),
                    other => panic!("an array of {other:?} is not supported"),
                };
                let function = if nullable { "nullable_array" } else { "array" };
                let least = element_least(field, element, self.message.versions);
                format!("decoder.{function}(flexible, {least}, |decoder| {read})?")
            }
        };
        // Where null is allowed only in some versions, elsewhere it is an error.
        if nullable && let Some(allowed) = self.condition(field.nullable) {
            return format!(
                "{{ let value = {call}; if value.is_none() && !({allowed}) {{ return Err(DecodeError::UnexpectedNull); }} value }}"
            );
        }
        call
    }

    fn write_encode(&self, out: &mut String, item: &Struct<'a>) {
        let flexible = self.flexible();
        let _ = writeln!(
            out,
            "        fn encode(&self, encoder: &mut Encoder, version: i16) -> Encoded {{\n            let flexible = {flexible};\n            let _ = (version, flexible);"
        );
        for field in item.fields.iter().filter(|field| field.tag.is_none()) {
            let write = self.write(field, &format!("self.{}", ident(&field.name)));
            match self.condition(field.versions) {
                None => {
                    let _ = writeln!(out, "            {write}");
                }
                Some(condition) => {
                    let _ = writeln!(out, "            if {condition} {{ {write} }}");
                }
            }
        }
        if flexible != "false" {
            let mut tagged: Vec<&Field> = item.fields.iter().filter(|field| field.tag.is_some()).collect();
            tagged.sort_by_key(|field| field.tag);
            out.push_str("            if flexible {\n");
            if tagged.is_empty() {
                out.push_str("                encoder.unsigned_varint(0);\n");
            } else {
                out.push_str("                let mut tags = 0;\n");
                let condition = |field: &Field| {
                    let value = format!("self.{}", ident(&field.name));
                    let set = match (field.default.as_deref(), &field.kind, field.is_nullable()) {
                        (Some("null"), ..) => format!("{value}.is_some()"),
                        _ => format!("{value} != {}", self.typed_default(field)),
                    };
                    self.condition(field.versions).map_or(set.clone(), |c| format!("{c} && {set}"))
                };
                for field in &tagged {
                    let _ = writeln!(out, "                if {} {{ tags += 1; }}", condition(field));
                }
                out.push_str("                encoder.unsigned_varint(tags);\n");
                for field in &tagged {
                    let _ = writeln!(
                        out,
                        "                if {} {{ let start = encoder.begin_tag({}); {} encoder.end_tag(start)?; }}",
                        condition(field),
                        field.tag.unwrap_or(0),
                        self.write(field, &format!("self.{}", ident(&field.name)))
                    );
                }
            }
            out.push_str("            }\n");
        }
        out.push_str("            Ok(())\n        }\n");
    }

    fn write(&self, field: &Field, value: &str) -> String {
        let nullable = field.is_nullable();
        match &field.kind {
            Type::Boolean => format!("encoder.i8(i8::from({value}));"),
            Type::Int8 => format!("encoder.i8({value});"),
            // Codes are counted as they go by: nobody has to look for them in the message again.
            Type::Int16 if field.name == "error_code" => format!("encoder.error_code({value});"),
            Type::Int16 => format!("encoder.i16({value});"),
            Type::UInt16 => format!("encoder.u16({value});"),
            Type::Int32 => format!("encoder.i32({value});"),
            Type::UInt32 => format!("encoder.u32({value});"),
            Type::Int64 => format!("encoder.i64({value});"),
            Type::Float64 => format!("encoder.f64({value});"),
            Type::Uuid => format!("encoder.uuid({value});"),
            Type::String if nullable => {
                let value = match self.condition(field.nullable) {
                    None => format!("{value}.as_deref()"),
                    Some(allowed) => format!(
                        "if {allowed} {{ {value}.as_deref() }} else {{ Some({value}.as_deref().unwrap_or_default()) }}"
                    ),
                };
                format!("encoder.nullable_text({value}, flexible)?;")
            }
            Type::String => format!("encoder.text(&{value}, flexible)?;"),
            Type::Bytes if nullable => format!("encoder.nullable_bytes({value}.as_ref(), flexible)?;"),
            Type::Bytes => format!("encoder.bytes(&{value}, flexible)?;"),
            Type::Records if nullable => format!("encoder.nullable_records({value}.as_ref(), flexible)?;"),
            Type::Records => format!("encoder.nullable_records(Some(&{value}), flexible)?;"),
            Type::Struct if nullable => {
                let null = if field.tag.is_some() { 0 } else { -1 };
                format!(
                    "match &{value} {{ Some(value) => {{ encoder.i8(1); value.encode(encoder, version)?; }} None => encoder.i8({null}) }}"
                )
            }
            Type::Struct => format!("{value}.encode(encoder, version)?;"),
            Type::Array(element) => {
                let write = match element.as_ref() {
                    Type::Struct => "value.encode(encoder, version)?;".to_owned(),
                    Type::String => "encoder.text(value, flexible)?;".into(),
                    Type::Bytes => "encoder.bytes(value, flexible)?;".into(),
                    Type::Int8 => "encoder.i8(*value);".into(),
                    Type::Int16 => "encoder.i16(*value);".into(),
                    Type::Int32 => "encoder.i32(*value);".into(),
                    Type::Int64 => "encoder.i64(*value);".into(),
                    Type::Uuid => "encoder.uuid(*value);".into(),
                    other => panic!("an array of {other:?} is not supported"),
                };
                if nullable {
                    let null = match self.condition(field.nullable) {
                        None => "encoder.null_length(flexible)?".to_owned(),
                        Some(c) => format!(
                            "if {c} {{ encoder.null_length(flexible)? }} else {{ encoder.length_prefix(0, flexible)? }}"
                        ),
                    };
                    format!(
                        "match &{value} {{ Some(values) => {{ encoder.length_prefix(values.len(), flexible)?; for value in values {{ {write} }} }} None => {{ {null}; }} }}"
                    )
                } else {
                    format!(
                        "encoder.length_prefix({value}.len(), flexible)?; for value in &{value} {{ {write} }}"
                    )
                }
            }
        }
    }
}
