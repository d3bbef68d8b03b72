//! Zero-copy strings: a [`Text`] is a slice of the frame it was decoded from, checked once to be UTF-8.
//!
//! A text keeps its whole frame in memory. State that outlives a request copies it with [`Text::detached`].

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// An immutable UTF-8 string over shared bytes. Cloning is a reference count.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// The empty text.
    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// A text over a string of the program; nothing is allocated.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text, if the bytes are UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    /// The string.
    pub fn as_str(&self) -> &str {
        // Every constructor checked the bytes; the check here is cheap for names and needs no unsafe code.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The bytes beneath.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// A copy with memory of its own, so that it does not keep the frame alive.
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

// Maps of texts are searched by `&str`: that needs the hash of `str`, which differs from that of bytes.
impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), formatter)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_map_of_texts_is_searched_by_str() {
        let map: HashMap<Text, i32> = [(Text::from("topic"), 1), (Text::new(), 2)].into();
        assert_eq!(map.get("topic"), Some(&1));
        assert_eq!(map.get(""), Some(&2));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        assert_eq!(Text::from_utf8(Bytes::from_static(b"\xc3\x28")), None);
    }
}
