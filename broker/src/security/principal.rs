//! Who a client is, as rules and quotas name it: `User:alice`.

use std::fmt;
use std::sync::Arc;

/// Type of every principal that a listener makes by itself.
pub const USER: &str = "User";
/// Name of a client that did not say who it is.
pub const ANONYMOUS: &str = "ANONYMOUS";

/// An authenticated client. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// Before the colon.
    pub principal_type: Arc<str>,
    /// After the colon.
    pub name: Arc<str>,
    /// Whether it came by a delegation token: such a client gets no further tokens (KIP-48).
    pub by_token: bool,
}

impl Principal {
    /// `User:name`.
    pub fn user(name: impl Into<Arc<str>>) -> Self {
        Self { principal_type: USER.into(), name: name.into(), by_token: false }
    }

    /// What a client is on a listener that asks for nothing.
    pub fn anonymous() -> Self {
        Self::user(ANONYMOUS)
    }

    /// Reads `Type:name`; `None` where the colon or the type is missing.
    pub fn parse(text: &str) -> Option<Self> {
        let (principal_type, name) = text.split_once(':')?;
        if principal_type.is_empty() || name.is_empty() {
            return None;
        }
        Some(Self { principal_type: principal_type.into(), name: name.into(), by_token: false })
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.principal_type, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_read_as_it_is_shown() {
        let principal = Principal::parse("User:CN=carol,O=clients:x").unwrap();
        assert_eq!(principal, Principal::user("CN=carol,O=clients:x"));
        assert_eq!(principal.to_string(), "User:CN=carol,O=clients:x");
        assert!(["", "User", ":x", "User:"].into_iter().all(|text| Principal::parse(text).is_none()));
    }
}
