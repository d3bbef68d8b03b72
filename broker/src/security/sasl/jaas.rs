//! The value of `sasl.jaas.config`: one login module, a flag, and options.
//!
//! `org.apache.kafka.common.security.plain.PlainLoginModule required username="a" user_alice="secret";`
//! Values may stand in double quotes, in which a backslash takes the next character as it is.

use std::collections::BTreeMap;

use crate::security::properties::Secret;

/// Longest value that is read, in bytes.
const LENGTH_MAX: usize = 1 << 20;

/// A login module's options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jaas {
    /// Name of the class; only its last part matters here.
    pub module: String,
    options: BTreeMap<String, Secret>,
}

impl Jaas {
    /// Reads a value. Errors do not repeat it: it holds passwords.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LENGTH_MAX {
            return Err("is too long".to_owned());
        }
        let mut words = Words { rest: text.trim() };
        let module = words.next_word()?.ok_or("names no login module")?;
        let flag = words.next_word()?.unwrap_or_default();
        if !["required", "requisite", "sufficient", "optional"].contains(&flag.to_ascii_lowercase().as_str())
        {
            return Err(format!("needs the word 'required' behind {module}"));
        }
        let mut options = BTreeMap::new();
        loop {
            if words.take(';') {
                break;
            }
            let Some(name) = words.next_word()? else {
                return Err("does not end with a semicolon".to_owned());
            };
            if !words.take('=') {
                return Err(format!("gives the option {name} no value"));
            }
            let value = words.next_word()?.ok_or_else(|| format!("gives the option {name} no value"))?;
            options.insert(name, Secret::new(value));
        }
        if !words.rest.trim().is_empty() {
            return Err("has more than one login module".to_owned());
        }
        Ok(Self { module, options })
    }

    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(Secret::expose)
    }

    /// Options whose names begin with a prefix, without it.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.options
            .iter()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.expose())))
    }

    /// Whether the module is one of a name, whatever package it is in.
    pub fn is_module(&self, name: &str) -> bool {
        self.module.rsplit('.').next() == Some(name)
    }
}

struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    /// Takes a sign, if it is next.
    fn take(&mut self, sign: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// The next word, quoted or not; `None` at the end or before a sign.
    fn next_word(&mut self) -> Result<Option<String>, String> {
        self.rest = self.rest.trim_start();
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            return self.quoted(quote).map(Some);
        }
        let end =
            self.rest.find(|c: char| c.is_whitespace() || c == '=' || c == ';').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(Some(word.to_owned()).filter(|word| !word.is_empty()))
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut word = String::new();
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            if escaped {
                word.push(c);
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                self.rest = &self.rest[at + c.len_utf8()..];
                return Ok(word);
            } else {
                word.push(c);
            }
        }
        Err("has a quote that does not end".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_options_are_read() {
        let jaas = Jaas::parse(
            "org.apache.kafka.common.security.plain.PlainLoginModule required\n  username=\"broker\" password='b \\'; x' \
             user_alice=\"a=1\\\"\"  user_bob=secret ;",
        )
        .unwrap();
        assert!(jaas.is_module("PlainLoginModule"));
        assert_eq!(jaas.option("username"), Some("broker"));
        assert_eq!(jaas.option("password"), Some("b '; x"));
        let users: Vec<_> = jaas.with_prefix("user_").collect();
        assert_eq!(users, [("alice", "a=1\""), ("bob", "secret")]);
    }

    #[test]
    fn a_module_needs_no_options() {
        let jaas = Jaas::parse("x.ScramLoginModule required;").unwrap();
        assert!(jaas.is_module("ScramLoginModule") && jaas.option("username").is_none());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_passwords() {
        for (text, expected) in [
            ("", "names no login module"),
            ("a.B", "the word 'required'"),
            ("a.B required user_a=\"hunter2\"", "semicolon"),
            ("a.B required user_a=\"hunter2", "quote"),
            ("a.B required user_a;", "no value"),
            ("a.B required; a.C required;", "more than one"),
        ] {
            let error = Jaas::parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn options_are_not_shown() {
        let jaas = Jaas::parse("a.B required user_a=\"hunter2\";").unwrap();
        assert!(!format!("{jaas:?}").contains("hunter2"));
    }
}
