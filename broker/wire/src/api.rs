//! The one table of APIs: keys, the versions served, and which header goes with them.

use std::ops::RangeInclusive;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// The key.
    pub key: ApiKey,
    /// Kafka's name.
    pub name: &'static str,
    /// The first version that is served.
    pub first: i16,
    /// The last version that is served.
    pub last: i16,
    /// The first version with compact lengths and tagged fields (KIP-482); `i16::MAX` if there is none.
    pub flexible_from: i16,
}

/// All APIs of Kafka's broker listener, by rising key.
pub fn table() -> &'static [Api] {
    TABLE
}

include!(concat!(env!("OUT_DIR"), "/api_keys.rs"));

impl ApiKey {
    /// The API with this key.
    pub fn from_code(code: i16) -> Option<Self> {
        let found = TABLE.binary_search_by_key(&code, |api| api.key.code()).ok()?;
        TABLE.get(found).map(|api| api.key)
    }

    /// All, by rising key.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|api| api.key)
    }

    /// The key on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    fn entry(self) -> &'static Api {
        let found = TABLE.binary_search_by_key(&self.code(), |api| api.key.code());
        &TABLE[found.unwrap_or(0)]
    }

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// The versions that are served.
    pub fn versions(self) -> RangeInclusive<i16> {
        self.entry().first..=self.entry().last
    }

    /// The first version that ApiVersions tells of. Produce is told from 0 though 0-2 are refused: older librdkafka
    /// reads compression support from it (KAFKA-18659).
    pub fn advertised_min(self) -> i16 {
        if self == Self::Produce { 0 } else { self.entry().first }
    }

    /// Whether this version has compact lengths and tagged fields.
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.entry().flexible_from
    }

    /// 1, or 2 in flexible versions.
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// 0, or 1 in flexible versions; always 0 for ApiVersions, which a client reads before it knows versions (KIP-511).
    pub fn response_header_version(self, version: i16) -> i16 {
        i16::from(self.is_flexible(version) && self != Self::ApiVersions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_key_finds_its_row() {
        assert_eq!(table().len(), 77);
        assert!(table().is_sorted_by_key(|api| api.key.code()));
        for api in table() {
            assert_eq!(ApiKey::from_code(api.key.code()), Some(api.key));
            assert_eq!(api.key.name(), api.name);
            assert!(api.first <= api.last);
        }
        assert_eq!(ApiKey::from_code(4), None);
        assert_eq!(ApiKey::from_code(-1), None);
    }

    #[test]
    fn produce_is_told_from_zero_and_unstable_versions_are_not_served() {
        assert_eq!(ApiKey::Produce.versions(), 3..=13);
        assert_eq!(ApiKey::Produce.advertised_min(), 0);
        assert_eq!(ApiKey::InitProducerId.versions(), 0..=5);
    }

    #[test]
    fn headers_follow_the_flexible_versions() {
        assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(3), 0);
        assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
        assert_eq!(ApiKey::Produce.response_header_version(9), 1);
    }
}
