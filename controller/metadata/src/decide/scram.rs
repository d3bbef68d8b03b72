//! AlterUserScramCredentials and what DescribeUserScramCredentials shows (KIP-554): each user by itself, all of its changes
//! or none.

use std::collections::{BTreeMap, BTreeSet};

use ottla_proto::controller as proto;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{MetadataRecord, RemoveScramCredentialRecord, ScramCredentialRecord};
use ottla_wire::error_code::ErrorCode;

use super::{Decision, Refusal, Situation, record};
use crate::credentials::ScramMechanism;
use crate::image::MetadataImage;

/// Rounds of hashing at least: fewer make guessing cheap (RFC 5802 and Kafka agree).
pub const ITERATIONS_MIN: i32 = 4_096;
/// Rounds at most: the server computes as many for each sign-in with a plain password.
pub const ITERATIONS_MAX: i32 = 16_384;
/// Bytes of a salt at most.
const SALT_BYTES_MAX: usize = 1_024;
/// Bytes of a user's name at most.
const USER_BYTES_MAX: usize = 1_024;

pub(super) fn decide(
    situation: Situation<'_>,
    command: &proto::AlterScramCredentials,
) -> Decision<proto::AlterScramCredentialsReply> {
    let mut users: BTreeMap<&str, Result<Vec<MetadataRecord>, Refusal>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let deletions = command.deletions.iter().map(|deletion| {
        let outcome = delete(situation.image, deletion);
        (deletion.user.as_str(), deletion.mechanism, outcome)
    });
    let upsertions = command
        .upsertions
        .iter()
        .map(|upsertion| (upsertion.user.as_str(), upsertion.mechanism, upsert(upsertion)));
    for (user, mechanism, outcome) in deletions.chain(upsertions) {
        let outcome = if seen.insert((user, mechanism)) {
            outcome
        } else {
            Err(Refusal::new(
                ErrorCode::DuplicateResource,
                "A user credential cannot be altered twice in the same request",
            ))
        };
        let entry = users.entry(user).or_insert_with(|| Ok(Vec::new()));
        match (entry, outcome) {
            (Ok(records), Ok(new)) => records.push(new),
            // Doubled changes say more than what is wrong with each.
            (entry, Err(refusal)) if entry.is_ok() || refusal.code == ErrorCode::DuplicateResource => {
                *entry = Err(refusal);
            }
            _ => {}
        }
    }
    let mut records = Vec::new();
    let users = users
        .into_iter()
        .map(|(user, outcome)| {
            let (code, message) = match outcome {
                Ok(new) => {
                    records.extend(new);
                    (ErrorCode::None, String::new())
                }
                Err(refusal) => (refusal.code, refusal.message),
            };
            proto::AlteredScramUser { user: user.to_owned(), error_code: i32::from(code.code()), message }
        })
        .collect();
    Decision { records, reply: proto::AlterScramCredentialsReply { users } }
}

fn unacceptable<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(ErrorCode::UnacceptableCredential, message))
}

fn check(user: &str, mechanism: i32) -> Result<ScramMechanism, Refusal> {
    if user.is_empty() {
        return unacceptable("Username must not be empty");
    }
    if user.len() > USER_BYTES_MAX {
        return unacceptable(format!("Username must not be longer than {USER_BYTES_MAX} bytes"));
    }
    ScramMechanism::from_code(mechanism)
        .ok_or_else(|| Refusal::new(ErrorCode::UnsupportedSaslMechanism, "Unknown SCRAM mechanism."))
}

fn delete(image: &MetadataImage, deletion: &RemoveScramCredentialRecord) -> Result<MetadataRecord, Refusal> {
    let mechanism = check(&deletion.user, deletion.mechanism)?;
    if image.scram_credential(&deletion.user, mechanism).is_none() {
        return Err(Refusal::new(
            ErrorCode::ResourceNotFound,
            "Attempt to delete a user credential that does not exist",
        ));
    }
    Ok(record(Record::RemoveScramCredential(deletion.clone())))
}

fn upsert(upsertion: &proto::ScramUpsertion) -> Result<MetadataRecord, Refusal> {
    let mechanism = check(&upsertion.user, upsertion.mechanism)?;
    if upsertion.iterations < ITERATIONS_MIN {
        return unacceptable("Too few iterations");
    }
    if upsertion.iterations > ITERATIONS_MAX {
        return unacceptable("Too many iterations");
    }
    if upsertion.salt.is_empty() || upsertion.salt.len() > SALT_BYTES_MAX {
        return unacceptable(format!("the salt must have 1 to {SALT_BYTES_MAX} bytes"));
    }
    let key_bytes = mechanism.key_bytes();
    if upsertion.stored_key.len() != key_bytes || upsertion.server_key.len() != key_bytes {
        return unacceptable(format!("the keys of {} have {key_bytes} bytes", mechanism.name()));
    }
    Ok(record(Record::ScramCredential(ScramCredentialRecord {
        user: upsertion.user.clone(),
        mechanism: upsertion.mechanism,
        salt: upsertion.salt.clone(),
        stored_key: upsertion.stored_key.clone(),
        server_key: upsertion.server_key.clone(),
        iterations: upsertion.iterations,
    })))
}

/// What DescribeUserScramCredentials says of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedScramUser {
    /// The user.
    pub user: String,
    /// DUPLICATE_RESOURCE, RESOURCE_NOT_FOUND, or none with at least one credential.
    pub error: ErrorCode,
    /// Mechanism and iterations of each credential.
    pub credentials: Vec<(ScramMechanism, i32)>,
}

/// What is known of these users, each once and in order; without names, of all that have a credential.
pub fn describe_scram_users(image: &MetadataImage, users: &[&str]) -> Vec<DescribedScramUser> {
    let of = |user: &str| -> Vec<(ScramMechanism, i32)> {
        [ScramMechanism::Sha256, ScramMechanism::Sha512]
            .into_iter()
            .filter_map(|mechanism| Some((mechanism, image.scram_credential(user, mechanism)?.iterations)))
            .collect()
    };
    if users.is_empty() {
        let all: BTreeSet<&str> = image.scram_credentials().map(|(user, ..)| user).collect();
        return all
            .into_iter()
            .map(|user| DescribedScramUser {
                user: user.to_owned(),
                error: ErrorCode::None,
                credentials: of(user),
            })
            .collect();
    }
    let mut seen = BTreeSet::new();
    users
        .iter()
        .filter(|user| seen.insert(**user))
        .map(|user| {
            let is_repeated = users.iter().filter(|other| *other == user).count() > 1;
            let credentials = if is_repeated { Vec::new() } else { of(user) };
            let error = match (is_repeated, credentials.is_empty()) {
                (true, _) => ErrorCode::DuplicateResource,
                (false, true) => ErrorCode::ResourceNotFound,
                (false, false) => ErrorCode::None,
            };
            DescribedScramUser { user: (*user).to_owned(), error, credentials }
        })
        .collect()
}
