//! Share sessions (KIP-932): a member of a share group tells a broker once which partitions it reads, and then what changes.
//!
//! A session is of a group and a member; each request counts its epoch up. Sessions are bound to connections: when one
//! breaks, what its sessions had is given to others. A broker keeps at most `group.share.max.share.sessions`; one more is
//! refused with SHARE_SESSION_LIMIT_REACHED, since a session that was evicted would still hold locks.

use std::collections::BTreeMap;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use uuid::Uuid;

/// A request with this epoch begins a session.
pub const INITIAL_EPOCH: i32 = 0;
/// A request with this epoch ends a session.
pub const FINAL_EPOCH: i32 = -1;
/// Partitions of one session. One more is refused with INVALID_REQUEST.
pub const SESSION_PARTITIONS_MAX: usize = 10_000;

/// A partition.
pub type Partition = (Uuid, i32);

/// Whose session it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionKey {
    /// The group.
    pub group_id: Text,
    /// The member.
    pub member_id: Text,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareSession {
    /// Which request comes next.
    epoch: i32,
    /// In the order in which they are looked at next.
    partitions: Vec<Partition>,
    /// It ends with this connection.
    connection: u64,
}

impl ShareSession {
    /// What the member reads.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }
}

/// A ShareFetch, as far as sessions go.
#[derive(Debug, Clone, Copy)]
pub struct SessionFetch<'a> {
    /// Its epoch.
    pub epoch: i32,
    /// What it names.
    pub partitions: &'a [Partition],
    /// What it drops.
    pub forgotten: &'a [Partition],
    /// It says what became of records.
    pub acknowledges: bool,
    /// Where it came in.
    pub connection: u64,
}

/// All share sessions of a broker.
#[derive(Debug)]
pub struct ShareSessions {
    sessions_max: usize,
    sessions: BTreeMap<SessionKey, ShareSession>,
}

impl ShareSessions {
    /// None yet.
    pub fn new(sessions_max: usize) -> Self {
        Self { sessions_max, sessions: BTreeMap::new() }
    }

    /// Sessions, and their partitions.
    pub fn counts(&self) -> (usize, usize) {
        (self.sessions.len(), self.sessions.values().map(|session| session.partitions.len()).sum())
    }

    /// Begins, goes on with or looks up a session: the partitions to look at, in this order. With [`FINAL_EPOCH`] there are
    /// none, and the session is there until it is removed.
    pub fn fetch(&mut self, key: &SessionKey, fetch: SessionFetch<'_>) -> Result<Vec<Partition>, ErrorCode> {
        match fetch.epoch {
            FINAL_EPOCH => self.sessions.get(key).map(|_| Vec::new()).ok_or(ErrorCode::ShareSessionNotFound),
            INITIAL_EPOCH => self.begin(key, fetch),
            epoch => {
                let session = self.sessions.get_mut(key).ok_or(ErrorCode::ShareSessionNotFound)?;
                if session.epoch != epoch {
                    return Err(ErrorCode::InvalidShareSessionEpoch);
                }
                update(&mut session.partitions, fetch)?;
                session.epoch = next(epoch);
                session.connection = fetch.connection;
                if !session.partitions.is_empty() {
                    session.partitions.rotate_left(1);
                }
                Ok(session.partitions.clone())
            }
        }
    }

    fn begin(&mut self, key: &SessionKey, fetch: SessionFetch<'_>) -> Result<Vec<Partition>, ErrorCode> {
        if fetch.acknowledges {
            return Err(ErrorCode::InvalidRequest);
        }
        if !self.sessions.contains_key(key) && self.sessions.len() >= self.sessions_max {
            return Err(ErrorCode::ShareSessionLimitReached);
        }
        let mut partitions = Vec::new();
        update(&mut partitions, fetch)?;
        let session = ShareSession {
            epoch: next(INITIAL_EPOCH),
            partitions: partitions.clone(),
            connection: fetch.connection,
        };
        let key = SessionKey { group_id: key.group_id.detached(), member_id: key.member_id.detached() };
        self.sessions.insert(key, session);
        Ok(partitions)
    }

    /// A ShareAcknowledge: it cannot begin a session.
    pub fn acknowledge(&mut self, key: &SessionKey, epoch: i32) -> Result<(), ErrorCode> {
        if epoch == INITIAL_EPOCH {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        let session = self.sessions.get_mut(key).ok_or(ErrorCode::ShareSessionNotFound)?;
        if epoch == FINAL_EPOCH {
            return Ok(());
        }
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        session.epoch = next(epoch);
        Ok(())
    }

    /// Ends a session.
    pub fn remove(&mut self, key: &SessionKey) -> Option<ShareSession> {
        self.sessions.remove(key)
    }

    /// Ends the sessions of a connection.
    pub fn remove_connection(&mut self, connection: u64) -> Vec<SessionKey> {
        let of_it = |(_, session): &(&SessionKey, &ShareSession)| session.connection == connection;
        let keys: Vec<SessionKey> = self.sessions.iter().filter(of_it).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.sessions.remove(key);
        }
        keys
    }

    /// Whether the group has a session here.
    pub fn has_group(&self, group_id: &Text) -> bool {
        let from = SessionKey { group_id: group_id.clone(), member_id: Text::default() };
        self.sessions.range(from..).next().is_some_and(|(key, _)| key.group_id == *group_id)
    }
}

/// The epoch behind an epoch: after the last comes the first that neither begins nor ends.
fn next(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

fn update(partitions: &mut Vec<Partition>, fetch: SessionFetch<'_>) -> Result<(), ErrorCode> {
    if fetch.partitions.len() > SESSION_PARTITIONS_MAX {
        return Err(ErrorCode::InvalidRequest);
    }
    let mut known: std::collections::BTreeSet<Partition> = partitions.iter().copied().collect();
    let new = fetch.partitions.iter().filter(|partition| known.insert(**partition));
    let new: Vec<Partition> = new.copied().collect();
    let forgotten: std::collections::BTreeSet<Partition> = fetch.forgotten.iter().copied().collect();
    if known.len() > SESSION_PARTITIONS_MAX {
        return Err(ErrorCode::InvalidRequest);
    }
    partitions.extend(new);
    partitions.retain(|partition| !forgotten.contains(partition));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(member: &str) -> SessionKey {
        SessionKey { group_id: Text::from("g"), member_id: Text::from(member) }
    }

    fn partition(index: i32) -> Partition {
        (Uuid::from_u128(1), index)
    }

    fn fetch(epoch: i32, partitions: &[Partition]) -> SessionFetch<'_> {
        SessionFetch { epoch, partitions, forgotten: &[], acknowledges: false, connection: 1 }
    }

    #[test]
    fn a_session_keeps_partitions_and_counts_its_requests() {
        let mut sessions = ShareSessions::new(1);
        let two = [partition(0), partition(1)];
        assert_eq!(sessions.fetch(&key("a"), fetch(1, &two)), Err(ErrorCode::ShareSessionNotFound));
        assert_eq!(sessions.fetch(&key("a"), fetch(-1, &[])), Err(ErrorCode::ShareSessionNotFound));
        let acknowledges = SessionFetch { acknowledges: true, ..fetch(0, &two) };
        assert_eq!(sessions.fetch(&key("a"), acknowledges), Err(ErrorCode::InvalidRequest));
        assert_eq!(sessions.fetch(&key("a"), fetch(0, &two)), Ok(two.to_vec()));
        assert_eq!(sessions.fetch(&key("b"), fetch(0, &two)), Err(ErrorCode::ShareSessionLimitReached));
        assert_eq!(sessions.fetch(&key("a"), fetch(2, &[])), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(sessions.fetch(&key("a"), fetch(1, &[])), Ok(vec![partition(1), partition(0)]));
        assert_eq!(sessions.acknowledge(&key("a"), 0), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(sessions.acknowledge(&key("b"), 1), Err(ErrorCode::ShareSessionNotFound));
        assert_eq!(sessions.acknowledge(&key("a"), 1), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(sessions.acknowledge(&key("a"), 2), Ok(()));
        let drops = SessionFetch { forgotten: &two[..1], ..fetch(3, &[]) };
        assert_eq!(sessions.fetch(&key("a"), drops), Ok(vec![partition(1)]));
        assert_eq!(sessions.acknowledge(&key("a"), FINAL_EPOCH), Ok(()));
        assert_eq!((sessions.counts(), sessions.has_group(&Text::from("g"))), ((1, 1), true));
        assert!(sessions.remove(&key("a")).is_some());
        assert!(!sessions.has_group(&Text::from("g")));
    }

    #[test]
    fn epochs_begin_anew_behind_the_last_one() {
        assert_eq!((next(0), next(7), next(i32::MAX)), (1, 8, 1));
    }

    #[test]
    fn a_connection_takes_its_sessions_along() {
        let mut sessions = ShareSessions::new(9);
        sessions.fetch(&key("a"), fetch(0, &[])).unwrap();
        sessions.fetch(&key("b"), SessionFetch { connection: 2, ..fetch(0, &[]) }).unwrap();
        assert_eq!(sessions.remove_connection(1), [key("a")]);
        assert_eq!(sessions.counts(), (1, 0));
    }
}
