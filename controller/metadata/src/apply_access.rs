//! Records to image, of who may do what, who is who, how fast, and which commands were carried out.

use std::sync::Arc;

use ottla_proto::metadata as proto;
use ottla_proto::metadata::metadata_record::Record;

use crate::acl::Acl;
use crate::apply::{ApplyError, uuid};
use crate::credentials::{DelegationToken, ScramCredential, ScramMechanism};
use crate::image::{CompletedCommand, LogIndex, MetadataDelta, MetadataImage};
use crate::quotas::QuotaEntity;

/// Carried-out commands that are remembered: more than may be under way at once when a leader is lost.
pub const COMPLETED_COMMANDS_MAX: usize = 256;

impl MetadataImage {
    pub(crate) fn apply_access(
        &mut self,
        index: LogIndex,
        record: &Record,
        delta: &mut MetadataDelta,
    ) -> Result<(), ApplyError> {
        match record {
            Record::ClientQuota(record) => {
                let entity = QuotaEntity::from_parts(&record.entity)
                    .map_err(|error| ApplyError::Invariant(index, error.to_string()))?;
                if record.value.is_some_and(f64::is_nan) {
                    return Err(ApplyError::Invariant(index, "a quota that is no number".to_owned()));
                }
                Arc::make_mut(&mut self.quotas).set(&entity, &record.key, record.value);
                delta.quotas = true;
            }
            Record::Acl(record) => {
                let id = uuid(index, &record.id)?;
                // What it says is not known: to go on without it might allow what it denies.
                let acl = Acl::from_record(record).ok_or(ApplyError::Unknown(index))?;
                if !Arc::make_mut(&mut self.acls).insert(id, acl) {
                    return Err(ApplyError::Invariant(index, format!("rule {id} is there already")));
                }
                delta.acls = true;
            }
            Record::RemoveAcl(record) => {
                let id = uuid(index, &record.id)?;
                if !Arc::make_mut(&mut self.acls).remove(id) {
                    return Err(ApplyError::Missing(index, format!("no rule {id} to remove")));
                }
                delta.acls = true;
            }
            Record::ScramCredential(record) => {
                let key = (record.user.clone(), mechanism(index, record.mechanism)?);
                let credential = ScramCredential::from_record(record);
                Arc::make_mut(&mut self.scram).insert(key, credential);
                delta.scram_users.insert(record.user.clone());
            }
            Record::RemoveScramCredential(record) => {
                let key = (record.user.clone(), mechanism(index, record.mechanism)?);
                if Arc::make_mut(&mut self.scram).remove(&key).is_none() {
                    let user = &record.user;
                    return Err(ApplyError::Missing(index, format!("no credential of {user} to remove")));
                }
                delta.scram_users.insert(record.user.clone());
            }
            Record::DelegationToken(record) => {
                let token = DelegationToken::from_record(record)
                    .ok_or_else(|| ApplyError::Invariant(index, "a token without an owner".to_owned()))?;
                delta.tokens.insert(token.id.clone());
                Arc::make_mut(&mut self.tokens).insert(token.id.clone(), token);
            }
            Record::RemoveDelegationToken(record) => {
                if Arc::make_mut(&mut self.tokens).remove(&record.token_id).is_none() {
                    return Err(ApplyError::Missing(index, "no such token to remove".to_owned()));
                }
                delta.tokens.insert(record.token_id.clone());
            }
            // Every other record has been applied before it comes here.
            _ => return Err(ApplyError::Unknown(index)),
        }
        Ok(())
    }

    pub(crate) fn complete_command(&mut self, index: LogIndex, record: &proto::CompletedCommandRecord) {
        let index = if record.index > 0 { LogIndex(record.index) } else { index };
        let completed = Arc::make_mut(&mut self.completed);
        completed.push_back(CompletedCommand {
            // Copies: a slice would keep the whole entry in memory that the record came in, with every partition of a large topic.
            id: bytes::Bytes::copy_from_slice(&record.command_id),
            reply: bytes::Bytes::copy_from_slice(&record.reply),
            index,
        });
        while completed.len() > COMPLETED_COMMANDS_MAX {
            completed.pop_front();
        }
    }
}

fn mechanism(index: LogIndex, code: i32) -> Result<ScramMechanism, ApplyError> {
    ScramMechanism::from_code(code).ok_or(ApplyError::Unknown(index))
}
