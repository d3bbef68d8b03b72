//! Patterns of topic names (KIP-848): compiled in linear time and bounded space, matched against whole names.
//!
//! The syntax is that of the crate `regex`, which is RE2's but for small print: neither knows look-around or
//! back-references.

use std::collections::BTreeSet;

use ottla_wire::text::Text;
use regex::{Regex, RegexBuilder};

use super::state::ResolvedRegex;
use super::view::TopicsView;

/// Bytes of a pattern.
const PATTERN_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a compiled pattern, and of what its automaton may cache while it matches.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// Depth of groups within groups.
const NESTING_MAX: u32 = 64;

/// The pattern over whole names, or what is wrong with it.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("it is longer than {PATTERN_BYTES_MAX} bytes"));
    }
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .nest_limit(NESTING_MAX)
            .build()
            .map_err(|error| error.to_string())
    };
    // By itself first: `a)|(b` would be right only between the brackets that are put around it.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

/// The topics that match. A pattern that does not compile matches none.
pub(crate) fn resolve(pattern: &str, topics: &TopicsView, wall_ms: i64) -> ResolvedRegex {
    let matching = match compile(pattern) {
        Ok(regex) => {
            let names = topics.topics().map(|topic| &topic.name);
            names.filter(|name| regex.is_match(name)).cloned().collect()
        }
        Err(_) => BTreeSet::<Text>::new(),
    };
    ResolvedRegex { topics: matching, version: topics.version(), timestamp_ms: wall_ms }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::view::TopicView;
    use super::*;

    #[test]
    fn whole_names_match() {
        let regex = compile(r"a-\d+|b").unwrap();
        let matches = ["a-1", "a-22", "b"];
        let others = ["a-", "xa-1", "a-1x", "bb", "a-1\n"];
        assert!(matches.iter().all(|name| regex.is_match(name)));
        assert!(!others.iter().any(|name| regex.is_match(name)));
    }

    #[test]
    fn nonsense_and_what_grows_without_bound_are_refused() {
        let long = "a".repeat(PATTERN_BYTES_MAX + 1);
        let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        for pattern in ["*", "a(b", "a)|(b", r"(a)\1", "(?=a)", "((a{1000}){1000}){1000}", &long, &deep] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_is_resolved_to_the_topics_there_are() {
        let mut topics = TopicsView::default();
        for (id, name) in ["t1", "t2", "u"].into_iter().enumerate() {
            let id = Uuid::from_u128(id as u128);
            topics.put(TopicView { id, name: Text::from(name), partitions: 1 });
        }
        let resolved = resolve("t.", &topics, 5);
        assert_eq!(resolved.topics, BTreeSet::from([Text::from("t1"), Text::from("t2")]));
        assert_eq!((resolved.version, resolved.timestamp_ms), (topics.version(), 5));
    }
}
