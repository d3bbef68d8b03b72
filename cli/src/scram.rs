//! Passwords of SCRAM users: what a server keeps of them is made here, so that no password leaves this process.

use std::num::NonZeroU32;

use bytes::Bytes;
use ottla_broker::security::ScramCredential;
use ottla_broker::security::sasl::scram::{ITERATIONS_MAX, ITERATIONS_MIN, ScramMechanism};
use ottla_proto::admin::UserCredential;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{MetadataRecord, ScramCredentialRecord};

/// Random bytes of a salt.
const SALT_BYTES: usize = 24;
/// The mechanisms by their names.
const MECHANISMS: [(&str, ScramMechanism); 2] =
    [("SCRAM-SHA-256", ScramMechanism::Sha256), ("SCRAM-SHA-512", ScramMechanism::Sha512)];

/// A mechanism as it is typed.
pub(crate) fn mechanism(text: &str) -> Result<ScramMechanism, String> {
    let found = MECHANISMS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, mechanism)| *mechanism).ok_or_else(|| "SCRAM-SHA-256 or SCRAM-SHA-512".to_owned())
}

/// A mechanism's name.
pub(crate) fn name(mechanism: ScramMechanism) -> &'static str {
    MECHANISMS.iter().find(|(_, known)| *known == mechanism).map_or("", |(name, _)| name)
}

/// What a server keeps of a password; `None`: the count of iterations is none that Kafka takes.
pub(crate) fn credential(
    mechanism: ScramMechanism,
    password: &str,
    iterations: u32,
) -> Option<ScramCredential> {
    let iterations = NonZeroU32::new(iterations)
        .filter(|count| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&count.get()))?;
    let salt: [u8; SALT_BYTES] = rand::random();
    Some(mechanism.credential(password.as_bytes(), Bytes::copy_from_slice(&salt), iterations))
}

/// The mechanisms' names.
pub(crate) fn names() -> [&'static str; 2] {
    MECHANISMS.map(|(name, _)| name)
}

/// As [`credential`], for the admin plane.
pub(crate) fn user_credential(
    mechanism: ScramMechanism,
    password: &str,
    iterations: u32,
) -> Option<UserCredential> {
    let made = credential(mechanism, password, iterations)?;
    Some(UserCredential {
        mechanism: name(mechanism).to_owned(),
        iterations: i32::try_from(made.iterations).unwrap_or(i32::MAX),
        salt: made.salt,
        stored_key: made.stored_key,
        server_key: made.server_key,
    })
}

/// A user that a new cluster begins with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FirstUser {
    name: String,
    password: String,
    mechanisms: Vec<ScramMechanism>,
    iterations: u32,
}

impl std::fmt::Debug for FirstUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirstUser").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FirstUser {
    /// Reads `NAME:PASSWORD`, for both mechanisms, or as Kafka's format tool has it
    /// `SCRAM-SHA-256=[name=NAME,password=PASSWORD,iterations=8192]`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write NAME:PASSWORD, or SCRAM-SHA-256=[name=NAME,password=PASSWORD]";
        let inner =
            text.split_once("=[").and_then(|(mechanism, rest)| Some((mechanism, rest.strip_suffix(']')?)));
        let mut user = Self {
            name: String::new(),
            password: String::new(),
            mechanisms: Vec::new(),
            iterations: ITERATIONS_MIN,
        };
        if let Some((mechanism_name, settings)) = inner {
            user.mechanisms.push(mechanism(mechanism_name)?);
            for setting in settings.split(',') {
                let (key, value) = setting.split_once('=').ok_or(FORM)?;
                let value = value.trim_matches('"');
                match key.trim() {
                    "name" => value.clone_into(&mut user.name),
                    "password" => value.clone_into(&mut user.password),
                    "iterations" => user.iterations = value.parse().map_err(|_| "iterations is no number")?,
                    other => return Err(format!("'{other}' is not known: {FORM}")),
                }
            }
        } else {
            let (name, password) = text.split_once(':').ok_or(FORM)?;
            name.clone_into(&mut user.name);
            password.clone_into(&mut user.password);
            user.mechanisms.extend(MECHANISMS.map(|(_, mechanism)| mechanism));
        }
        if user.name.is_empty() || user.password.is_empty() {
            return Err(FORM.to_owned());
        }
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&user.iterations) {
            return Err(format!("iterations must be {ITERATIONS_MIN} to {ITERATIONS_MAX}"));
        }
        Ok(user)
    }

    /// What the metadata begins with.
    pub(crate) fn records(&self) -> Vec<MetadataRecord> {
        let record = |mechanism: &ScramMechanism| {
            let credential = credential(*mechanism, &self.password, self.iterations)?;
            let record = Record::ScramCredential(ScramCredentialRecord {
                user: self.name.clone(),
                mechanism: mechanism.code().into(),
                salt: credential.salt,
                stored_key: credential.stored_key,
                server_key: credential.server_key,
                iterations: i32::try_from(credential.iterations).ok()?,
            });
            Some(MetadataRecord { record: Some(record) })
        };
        self.mechanisms.iter().filter_map(record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_user_is_read_in_both_forms() {
        let user = FirstUser::parse("admin:se:cret").unwrap();
        assert_eq!(
            (user.name.as_str(), user.password.as_str(), user.records().len()),
            ("admin", "se:cret", 2)
        );
        let user = FirstUser::parse("SCRAM-SHA-512=[name=admin,iterations=8192,password=\"x\"]").unwrap();
        let records = user.records();
        let Some(Record::ScramCredential(record)) = &records[0].record else { panic!("{records:?}") };
        assert_eq!((record.mechanism, record.iterations, record.stored_key.len()), (2, 8192, 64));
        assert!(!format!("{user:?}").contains('x'));
        for wrong in
            ["admin", ":x", "a:", "MD5=[name=a,password=b]", "SCRAM-SHA-256=[name=a,password=b,iterations=1]"]
        {
            assert!(FirstUser::parse(wrong).is_err(), "{wrong}");
        }
    }
}
