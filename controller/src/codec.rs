//! Entries as bytes, the same on disk and on the wire.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the head, big-endian |
//! | head | JSON: log id, kind, and a membership where the entry is one |
//! | rest | the encoded `MetadataBatch`; nothing for other kinds |

use std::io;

use bytes::{Buf, Bytes};
use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;
use serde::{Deserialize, Serialize};

use crate::types::{Batch, Entry, LogId, Membership, TypeConfig, Vote};

#[derive(Serialize, Deserialize)]
struct Head {
    id: LogId,
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
enum Kind {
    Blank,
    Normal,
    Membership(Membership),
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a Raft entry is broken: {what}"))
}

fn put_block(out: &mut Vec<u8>, block: &[u8]) -> io::Result<()> {
    let length = u32::try_from(block.len()).map_err(|_| broken("longer than 4 GiB"))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(block);
    Ok(())
}

fn take_block(bytes: &mut Bytes) -> io::Result<Bytes> {
    if bytes.len() < 4 {
        return Err(broken("a length is cut off"));
    }
    let length = usize::try_from(bytes.get_u32()).map_err(|_| broken("a length"))?;
    if bytes.len() < length {
        return Err(broken("shorter than its length"));
    }
    Ok(bytes.split_to(length))
}

/// An entry's bytes.
pub(crate) fn encode_entry(entry: &Entry) -> io::Result<Vec<u8>> {
    let (kind, data): (Kind, &[u8]) = match &entry.payload {
        EntryPayload::Blank => (Kind::Blank, &[]),
        EntryPayload::Normal(batch) => (Kind::Normal, &batch.0),
        EntryPayload::Membership(membership) => (Kind::Membership(membership.clone()), &[]),
    };
    let head = serde_json::to_vec(&Head { id: entry.log_id, kind })?;
    let mut out = Vec::with_capacity(4 + head.len() + data.len());
    put_block(&mut out, &head)?;
    out.extend_from_slice(data);
    Ok(out)
}

/// An entry of its bytes; the batch is not copied.
pub(crate) fn decode_entry(mut bytes: Bytes) -> io::Result<Entry> {
    let head: Head = serde_json::from_slice(&take_block(&mut bytes)?)?;
    let payload = match head.kind {
        Kind::Blank => EntryPayload::Blank,
        Kind::Normal => EntryPayload::Normal(Batch(bytes)),
        Kind::Membership(membership) => EntryPayload::Membership(membership),
    };
    Ok(Entry { log_id: head.id, payload })
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    prev_log_id: Option<LogId>,
    leader_commit: Option<LogId>,
}

/// A request as a payload of the wire: head and entries, each behind its length.
pub(crate) fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> io::Result<Bytes> {
    let head = AppendHead {
        vote: request.vote,
        prev_log_id: request.prev_log_id,
        leader_commit: request.leader_commit,
    };
    let mut out = Vec::new();
    put_block(&mut out, &serde_json::to_vec(&head)?)?;
    for entry in &request.entries {
        put_block(&mut out, &encode_entry(entry)?)?;
    }
    Ok(out.into())
}

/// A request of its payload.
pub(crate) fn decode_append(mut bytes: Bytes) -> io::Result<AppendEntriesRequest<TypeConfig>> {
    let head: AppendHead = serde_json::from_slice(&take_block(&mut bytes)?)?;
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        entries.push(decode_entry(take_block(&mut bytes)?)?);
    }
    Ok(AppendEntriesRequest {
        vote: head.vote,
        prev_log_id: head.prev_log_id,
        leader_commit: head.leader_commit,
        entries,
    })
}
