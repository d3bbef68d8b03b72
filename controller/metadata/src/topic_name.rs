//! Kafka's rules for topic names. A name is a directory name on every broker that has a replica.

/// Longest name, in characters, which are bytes.
pub const LENGTH_MAX: usize = 249;

/// Why a name is not a topic's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// Nothing in it.
    #[error("a topic name may not be empty")]
    Empty,
    /// `.` or `..`.
    #[error("a topic name may not be '.' or '..'")]
    Dots,
    /// Longer than [`LENGTH_MAX`].
    #[error("a topic name of {0} characters: at most {LENGTH_MAX} are allowed")]
    TooLong(usize),
    /// A character of other kinds.
    #[error("a topic name may only hold ASCII letters, digits, '.', '_' and '-', not {0:?}")]
    Character(char),
}

/// Checks a name.
pub fn validate(name: &str) -> Result<(), TopicNameError> {
    if name.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if name == "." || name == ".." {
        return Err(TopicNameError::Dots);
    }
    if name.len() > LENGTH_MAX {
        return Err(TopicNameError::TooLong(name.chars().count()));
    }
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
        Some(other) => Err(TopicNameError::Character(other)),
        None => Ok(()),
    }
}

/// A name as metrics show it, where `.` and `_` are the same: two topics may not share one.
pub fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_digits_dots_underscores_and_dashes() {
        assert!(["a", "a.b_c-9", &"x".repeat(249), "..."].into_iter().all(|name| validate(name).is_ok()));
        assert_eq!(validate(""), Err(TopicNameError::Empty));
        assert_eq!(validate(".."), Err(TopicNameError::Dots));
        assert_eq!(validate(&"x".repeat(250)), Err(TopicNameError::TooLong(250)));
        assert_eq!(validate("a/b"), Err(TopicNameError::Character('/')));
        assert_eq!(validate("tópico"), Err(TopicNameError::Character('ó')));
    }
}
