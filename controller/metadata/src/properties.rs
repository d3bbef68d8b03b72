//! The text of a Java property file, as node files are: `name=value` lines, nothing else.
//!
//! The rules are those of `java.util.Properties.load(Reader)`: comments begin with `#` or `!`; `=`, `:` or white space parts
//! the name from the value; a backslash at the end of a line continues it; `\t \n \r \f \uXXXX` are escapes, and a
//! backslash before any other character stands for that character. Java refuses a broken `\u`; here it stays as written,
//! for a file that cannot be read tells its owner less than a value that looks wrong.

use std::iter::Peekable;
use std::str::{CharIndices, Chars};

/// One setting of a property file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// The line that it begins on; the first is 1.
    pub line: usize,
    /// Name, without escapes.
    pub name: String,
    /// Value, without escapes; blanks at its end belong to it, as in Java.
    pub value: String,
}

/// Every setting, in the order of the file. A name may come twice: in Java the later line wins.
pub fn parse(text: &str) -> Vec<Property> {
    LogicalLines { rest: text, line: 0 }
        .map(|(line, content)| {
            let (name, value) = split(&content);
            Property { line, name: unescape(name), value: unescape(value) }
        })
        .collect()
}

/// Lines with continuations joined; comments and blank lines are gone.
struct LogicalLines<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> LogicalLines<'a> {
    /// A line without its end: `\n`, `\r` or `\r\n`.
    fn natural(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let Some(end) = self.rest.find(['\n', '\r']) else {
            return Some(std::mem::take(&mut self.rest));
        };
        let (content, rest) = self.rest.split_at(end);
        self.rest = rest.strip_prefix("\r\n").unwrap_or(&rest[1..]);
        Some(content)
    }
}

impl Iterator for LogicalLines<'_> {
    type Item = (usize, String);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut part = self.natural()?.trim_start_matches(is_blank);
            // Only a first line can be a comment: what continues a line is part of it, whatever it begins with.
            if part.is_empty() || part.starts_with(['#', '!']) {
                continue;
            }
            let line = self.line;
            let mut joined = String::new();
            loop {
                if !ends_in_continuation(part) {
                    joined.push_str(part);
                    break;
                }
                joined.push_str(&part[..part.len() - 1]);
                let Some(next) = self.natural() else { break };
                part = next.trim_start_matches(is_blank);
            }
            if !joined.is_empty() {
                return Some((line, joined));
            }
        }
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

/// An odd number of backslashes ends the line: the last one is not itself escaped.
fn ends_in_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Name and value, both still escaped.
fn split(line: &str) -> (&str, &str) {
    let mut characters = line.char_indices().peekable();
    let end = name_end(&mut characters).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (name, rest.trim_start_matches(is_blank))
}

fn name_end(characters: &mut Peekable<CharIndices<'_>>) -> Option<usize> {
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '=' | ':' => return Some(index),
            other if is_blank(other) => return Some(index),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => match unicode(&mut characters) {
                Some(decoded) => plain.push(decoded),
                None => plain.push_str("\\u"),
            },
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

/// The character of `XXXX`, or of a pair of surrogates `XXXX\uXXXX`. On a fault nothing is consumed.
fn unicode(characters: &mut Chars<'_>) -> Option<char> {
    let mut ahead = characters.clone();
    let high = hexadecimal(&mut ahead)?;
    let decoded = if (0xd800..0xdc00).contains(&high) {
        if ahead.next() != Some('\\') || ahead.next() != Some('u') {
            return None;
        }
        let low = hexadecimal(&mut ahead).filter(|low| (0xdc00..0xe000).contains(low))?;
        char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
    } else {
        char::from_u32(high)?
    };
    *characters = ahead;
    Some(decoded)
}

fn hexadecimal(characters: &mut Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |value, _| Some(value * 16 + characters.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).into_iter().map(|property| (property.name, property.value)).collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = pairs(text);
        assert_eq!(all.len(), 1, "{text:?} gave {all:?}");
        all.remove(0)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn equals_colon_and_blanks_part_name_and_value() {
        for text in
            ["node.id=1", "node.id:1", "node.id 1", "  node.id\t=  1", "node.id \t 1", "node.id : 1\n"]
        {
            assert_eq!(one(text), pair("node.id", "1"), "{text:?}");
        }
    }

    #[test]
    fn a_second_separator_belongs_to_the_value() {
        assert_eq!(one("listeners=PLAINTEXT://:9092"), pair("listeners", "PLAINTEXT://:9092"));
        assert_eq!(one("a = = b"), pair("a", "= b"));
    }

    #[test]
    fn comments_and_blank_lines_are_skipped_and_lines_are_counted() {
        let text = "# first\n\n   ! second\r\n \t\na=1\r\rb=2\n#end";
        let lines: Vec<_> = parse(text).into_iter().map(|property| (property.line, property.name)).collect();
        assert_eq!(lines, [(5, "a".to_owned()), (7, "b".to_owned())]);
    }

    #[test]
    fn a_hash_in_a_value_is_no_comment() {
        assert_eq!(one("a=1 # not a comment"), pair("a", "1 # not a comment"));
    }

    #[test]
    fn a_backslash_continues_a_line_and_its_number_is_the_first() {
        let all = parse("a = 1,\\\n    2,\\\n  #3\nb=4");
        assert_eq!((all[0].line, all[0].value.as_str()), (1, "1,2,#3"));
        assert_eq!((all[1].line, all[1].value.as_str()), (4, "4"));
    }

    #[test]
    fn an_escaped_backslash_does_not_continue() {
        assert_eq!(pairs("a=C:\\\\\nb=2"), [pair("a", "C:\\"), pair("b", "2")]);
    }

    #[test]
    fn a_backslash_at_the_end_of_the_file_is_dropped() {
        assert_eq!(one("a=1\\"), pair("a", "1"));
        assert_eq!(pairs("\\"), []);
    }

    #[test]
    fn escapes_are_read_in_names_and_values() {
        assert_eq!(one(r"a\ b\=\:c = \t\n\r\f\q\\"), pair("a b=:c", "\t\n\r\u{c}q\\"));
        assert_eq!(one(r"a=\u00e9\u4E2D\ud83d\ude00"), pair("a", "é中😀"));
    }

    #[test]
    fn a_broken_unicode_escape_stays_as_written() {
        assert_eq!(one(r"a=\u12g4"), pair("a", r"\u12g4"));
        assert_eq!(one(r"a=\ud83dx"), pair("a", r"\ud83dx"));
        assert_eq!(one(r"a=\u"), pair("a", r"\u"));
    }

    #[test]
    fn a_name_without_value_is_empty() {
        assert_eq!(pairs("a\nb=\nc :"), [pair("a", ""), pair("b", ""), pair("c", "")]);
    }

    #[test]
    fn blanks_at_the_end_of_a_value_stay() {
        assert_eq!(one("a=1  "), pair("a", "1  "));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[a\\\\=: \t\r\n#!u0d8é]{0,60}") {
            for property in parse(&text) {
                prop_assert!(property.line >= 1);
            }
        }

        #[test]
        fn what_is_written_escaped_is_read_back(name in "[a-z= :#!é]{1,10}", value in "[a-z=:\\\\\n\t é]{0,10}") {
            let escape = |text: &str| -> String {
                text.chars().map(|character| match character {
                    '\n' => "\\n".to_owned(),
                    'a'..='z' => character.to_string(),
                    'é' => "\\u00e9".to_owned(),
                    other => format!("\\{other}").replace("\\\t", "\\t"),
                }).collect()
            };
            prop_assert_eq!(one(&format!("{} = {}", escape(&name), escape(&value))), (name, value));
        }
    }
}
