//! AlterClientQuotas and the filters of DescribeClientQuotas (KIP-546): each entity by itself, all of its changes or none.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ottla_proto::controller as proto;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{ClientQuotaRecord, MetadataRecord};
use ottla_wire::error_code::ErrorCode;

use super::{Decision, Refusal, Situation, record};
use crate::image::MetadataImage;
use crate::quotas::{
    CLIENT_ID, CONNECTION_CREATION_RATE, CONSUMER_BYTE_RATE, CONTROLLER_MUTATION_RATE, IP,
    PRODUCER_BYTE_RATE, QuotaEntity, REQUEST_PERCENTAGE, USER,
};

/// How far a value may lie from a whole number and still be one.
const WHOLE_TOLERANCE: f64 = 1e-6;
/// The first number that 64 signed bits do not hold.
const LONG_END: f64 = 9_223_372_036_854_775_808.0;

pub(super) fn decide(
    situation: Situation<'_>,
    command: &proto::AlterClientQuotas,
) -> Decision<proto::AlterClientQuotasReply> {
    let mut seen = BTreeSet::new();
    let repeated: BTreeSet<QuotaEntity> = command
        .entries
        .iter()
        .filter_map(|entry| QuotaEntity::from_parts(&entry.entity).ok())
        .filter(|entity| !seen.insert(entity.clone()))
        .collect();
    let mut records = Vec::new();
    let entries = command
        .entries
        .iter()
        .map(|entry| match alter(situation.image, entry, &repeated) {
            Ok(new) => {
                if !command.validate_only {
                    records.extend(new);
                }
                proto::AlteredQuota::default()
            }
            Err(message) => {
                proto::AlteredQuota { error_code: i32::from(ErrorCode::InvalidRequest.code()), message }
            }
        })
        .collect();
    Decision { records, reply: proto::AlterClientQuotasReply { entries } }
}

fn alter(
    image: &MetadataImage,
    entry: &proto::QuotaAlteration,
    repeated: &BTreeSet<QuotaEntity>,
) -> Result<Vec<MetadataRecord>, String> {
    let entity = QuotaEntity::from_parts(&entry.entity).map_err(|error| error.to_string())?;
    if repeated.contains(&entity) {
        return Err("the entity stands in the request more than once".to_owned());
    }
    if let Some(Some(ip)) = &entity.ip
        && ip.parse::<IpAddr>().is_err()
    {
        return Err(format!("{ip} is not an IP address"));
    }
    let mut keys = BTreeSet::new();
    let mut records = Vec::new();
    for change in &entry.changes {
        if !keys.insert(change.key.as_str()) {
            return Err(format!("{} stands in the request more than once", change.key));
        }
        check_key(&entity, &change.key)?;
        let value = change.value.map(|value| checked(&change.key, value)).transpose()?;
        if image.client_quotas().get(&entity, &change.key) != value {
            records.push(record(Record::ClientQuota(ClientQuotaRecord {
                entity: entity.parts(),
                key: change.key.clone(),
                value,
            })));
        }
    }
    Ok(records)
}

fn check_key(entity: &QuotaEntity, key: &str) -> Result<(), String> {
    let of_clients = [PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, REQUEST_PERCENTAGE, CONTROLLER_MUTATION_RATE];
    let is_known =
        if entity.ip.is_some() { key == CONNECTION_CREATION_RATE } else { of_clients.contains(&key) };
    if is_known { Ok(()) } else { Err(format!("Invalid configuration key {key}")) }
}

fn checked(key: &str, value: f64) -> Result<f64, String> {
    if !value.is_finite() || value <= 0.0 {
        return Err(format!("Quota {key} must be greater than 0"));
    }
    let limit = match key {
        REQUEST_PERCENTAGE | CONTROLLER_MUTATION_RATE => return Ok(value),
        CONNECTION_CREATION_RATE => f64::from(i32::MAX) + 1.0,
        _ => LONG_END,
    };
    let whole = value.round();
    if (value - whole).abs() > WHOLE_TOLERANCE || whole < 1.0 {
        return Err(format!("{key} must be a whole number"));
    }
    if whole >= limit {
        return Err(format!("Proposed value for {key} is too large"));
    }
    Ok(whole)
}

/// How one part of an entity is matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuotaMatch {
    /// The part has this name.
    Exact(String),
    /// The part is the default of its type.
    Default,
    /// The part is there, whatever its name.
    Any,
}

/// One component of a filter of DescribeClientQuotas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaFilter {
    /// `user`, `client-id` or `ip`.
    pub entity_type: String,
    /// How it is matched.
    pub matched: QuotaMatch,
}

impl QuotaFilter {
    /// A component from its wire form: match type 0 exact, 1 default, 2 any.
    pub fn new(entity_type: &str, match_type: i8, name: Option<&str>) -> Result<Self, Refusal> {
        let refuse = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
        if entity_type.is_empty() {
            return refuse("Unexpected empty filter component entity type");
        }
        let matched = match (match_type, name) {
            (0, Some(name)) => QuotaMatch::Exact(name.to_owned()),
            (0, None) => return refuse("Request specified MATCH_TYPE_EXACT, but set match string to null"),
            (1 | 2, Some(_)) => {
                return refuse("Request specified a match of default or any, but set the match string");
            }
            (1, None) => QuotaMatch::Default,
            (2, None) => QuotaMatch::Any,
            _ => return refuse("Unknown match type"),
        };
        Ok(Self { entity_type: entity_type.to_owned(), matched })
    }
}

/// An entity and its limits, by key.
pub type DescribedQuota = (QuotaEntity, Vec<(String, f64)>);

/// The entities that match every component, with their limits. `strict`: entities with other parts as well do not match.
pub fn describe_client_quotas(
    image: &MetadataImage,
    filters: &[QuotaFilter],
    strict: bool,
) -> Result<Vec<DescribedQuota>, Refusal> {
    let mut types = BTreeSet::new();
    for filter in filters {
        let kind = filter.entity_type.as_str();
        if ![USER, CLIENT_ID, IP].contains(&kind) {
            return Err(Refusal::new(
                ErrorCode::UnsupportedVersion,
                format!("Custom entity type '{kind}' not supported"),
            ));
        }
        if !types.insert(kind) {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!("Duplicate filter component entity type: {kind}"),
            ));
        }
    }
    if types.contains(IP) && types.len() > 1 {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "Invalid entity filter component combination, IP filter component should not be used with user \
             or clientId filter component.",
        ));
    }
    let matches = |entity: &QuotaEntity| {
        let all = filters.iter().all(|filter| match (entity.part(&filter.entity_type), &filter.matched) {
            (None, _) => false,
            (Some(name), QuotaMatch::Exact(wanted)) => name == Some(wanted),
            (Some(name), QuotaMatch::Default) => name.is_none(),
            (Some(_), QuotaMatch::Any) => true,
        });
        all && (!strict || entity.parts().len() == filters.len())
    };
    let found = image.client_quotas().iter().filter(|(entity, _)| matches(entity));
    let owned = |(key, value): (&str, f64)| (key.to_owned(), value);
    // The iterator borrows what the answer must own.
    Ok(found.map(|(entity, values)| (entity, values.into_iter().map(owned).collect())).collect())
}
