//! `--format`: how a record is shown.

use std::io::{self, Write};

use bytes::Bytes;

use crate::client::records::Consumed;
use crate::parse;

/// A format, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordFormat(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    Headers,
}

impl RecordFormat {
    /// `%t %p %o %k %v` and `%T` (timestamp, ms), `%h` (headers, k=v,…), `%%`; `\n`, `\t` and such.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let unescaped = parse::unescape(text);
        let mut chars = unescaped.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                plain.push(c);
                continue;
            }
            let piece = match chars.next() {
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some('t') => Piece::Topic,
                Some('p') => Piece::Partition,
                Some('o') => Piece::Offset,
                Some('T') => Piece::Timestamp,
                Some('k') => Piece::Key,
                Some('v') => Piece::Value,
                Some('h') => Piece::Headers,
                other => {
                    let shown = other.map(String::from).unwrap_or_default();
                    return Err(format!("'%{shown}' is not known; there are %t %p %o %T %k %v %h %%"));
                }
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// Writes a record; an absent key or value is nothing.
    pub(super) fn write(&self, record: &Consumed, out: &mut impl Write) -> io::Result<()> {
        let bytes =
            |field: Option<&Bytes>, out: &mut dyn Write| field.map_or(Ok(()), |bytes| out.write_all(bytes));
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.write_all(text.as_bytes())?,
                Piece::Topic => out.write_all(record.topic.as_bytes())?,
                Piece::Partition => write!(out, "{}", record.partition)?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Timestamp => write!(out, "{}", record.timestamp_ms)?,
                Piece::Key => bytes(record.key.as_ref(), out)?,
                Piece::Value => bytes(record.value.as_ref(), out)?,
                Piece::Headers => {
                    for (at, (key, value)) in record.headers.iter().enumerate() {
                        if at > 0 {
                            out.write_all(b",")?;
                        }
                        out.write_all(key)?;
                        out.write_all(b"=")?;
                        bytes(value.as_ref(), out)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_put_together() {
        let record = Consumed {
            topic: "t".into(),
            partition: 1,
            offset: 2,
            timestamp_ms: 3,
            key: None,
            value: Some("v".into()),
            headers: vec![("a".into(), Some("b".into())), ("c".into(), None)],
        };
        let mut out = Vec::new();
        let format = RecordFormat::parse(r"%t %p %o %T [%k] %v %h 100%%\n").unwrap();
        format.write(&record, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "t 1 2 3 [] v a=b,c= 100%\n");
        assert!(RecordFormat::parse("%x").is_err());
        assert!(RecordFormat::parse("%").is_err());
    }
}
