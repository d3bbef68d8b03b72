//! `ssl.principal.mapping.rules` (KIP-371): from the subject of a certificate to the name of a principal.
//!
//! `RULE:pattern/replacement/[LU]` or `DEFAULT`, the first that matches the whole name counts. A slash within is `\/`.

use regex::Regex;

/// Compiled size of one pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone)]
enum Rule {
    Default,
    Pattern { pattern: Regex, replacement: String, case: Case },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Kept,
    Lower,
    Upper,
}

/// The rules of a node, in order.
#[derive(Debug, Clone)]
pub struct PrincipalMapping(Vec<Rule>);

impl Default for PrincipalMapping {
    fn default() -> Self {
        Self(vec![Rule::Default])
    }
}

impl PrincipalMapping {
    /// Reads the property.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        let mut rest = text.trim_start_matches(is_between);
        while !rest.is_empty() {
            let (rule, after) = parse_rule(rest)?;
            rules.push(rule);
            rest = after.trim_start_matches(is_between);
        }
        Ok(if rules.is_empty() { Self::default() } else { Self(rules) })
    }

    /// The name of a principal; `None` when no rule matches.
    pub fn name(&self, subject: &str) -> Option<String> {
        self.0.iter().find_map(|rule| match rule {
            Rule::Default => Some(subject.to_owned()),
            Rule::Pattern { pattern, replacement, case } => {
                let captures = pattern.captures(subject)?;
                let mut name = String::new();
                captures.expand(replacement, &mut name);
                Some(match case {
                    Case::Kept => name,
                    Case::Lower => name.to_lowercase(),
                    Case::Upper => name.to_uppercase(),
                })
            }
        })
    }
}

fn is_between(c: char) -> bool {
    c == ',' || c.is_whitespace()
}

fn parse_rule(text: &str) -> Result<(Rule, &str), String> {
    if let Some(rest) = text.strip_prefix("DEFAULT") {
        if !rest.is_empty() && !rest.starts_with(is_between) {
            return Err(format!("'{text}' is no rule"));
        }
        return Ok((Rule::Default, rest));
    }
    let wrong =
        || format!("'{text}' is neither DEFAULT nor RULE:pattern/replacement/ with L, U or nothing behind");
    let rest = text.strip_prefix("RULE:").ok_or_else(wrong)?;
    let (pattern, rest) = until_slash(rest).ok_or_else(wrong)?;
    let (replacement, rest) = until_slash(rest).ok_or_else(wrong)?;
    let (case, rest) = match rest.chars().next() {
        Some('L') => (Case::Lower, &rest[1..]),
        Some('U') => (Case::Upper, &rest[1..]),
        _ => (Case::Kept, rest),
    };
    if !rest.is_empty() && !rest.starts_with(is_between) {
        return Err(wrong());
    }
    let pattern = regex::RegexBuilder::new(&format!("^(?:{})$", pattern.replace("\\/", "/")))
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|error| format!("'{pattern}' is no regular expression that is understood here: {error}"))?;
    Ok((Rule::Pattern { pattern, replacement: references(&replacement.replace("\\/", "/")), case }, rest))
}

/// What stands before the next slash that no backslash hides, and what behind it.
fn until_slash(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == '/' && !escaped {
            return Some((&text[..at], &text[at + 1..]));
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// `$1` of Java is one digit, whatever follows: here it needs braces for that.
fn references(replacement: &str) -> String {
    let mut out = String::new();
    let mut signs = replacement.chars().peekable();
    while let Some(c) = signs.next() {
        match (c, signs.peek()) {
            ('$', Some(digit)) if digit.is_ascii_digit() => {
                out.push_str("${");
                out.push(*digit);
                out.push('}');
                signs.next();
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_counts() {
        let mapping = PrincipalMapping::parse(
            "RULE:^CN=(.*?),O=mapped$/$1/L, RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*),OU=up.*$/$1x/U,DEFAULT",
        )
        .unwrap();
        assert_eq!(mapping.name("CN=Dave,O=mapped").as_deref(), Some("dave"));
        assert_eq!(mapping.name("CN=ann,OU=up,C=x").as_deref(), Some("ANNX"));
        assert_eq!(mapping.name("CN=carol,O=clients").as_deref(), Some("CN=carol,O=clients"));
    }

    #[test]
    fn without_default_a_name_may_match_nothing() {
        let mapping = PrincipalMapping::parse(r"RULE:CN=a\/(.)/$1/").unwrap();
        assert_eq!(mapping.name("CN=a/b").as_deref(), Some("b"));
        assert_eq!(mapping.name("CN=b"), None);
        assert_eq!(PrincipalMapping::parse("").unwrap().name("CN=b").as_deref(), Some("CN=b"));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in ["DEFAULTS", "RULE:a", "RULE:a/b", "RULE:a/b/X", "RULE:(/b/", "nonsense"] {
            assert!(PrincipalMapping::parse(text).is_err(), "{text}");
        }
    }
}
