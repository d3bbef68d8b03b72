//! The follower's side of an incremental fetch session (KIP-227): what the next request has to say so that the leader
//! knows of each partition what this broker wants. Pure: positions come in, requests go out.

use std::collections::{BTreeMap, HashMap};

use crate::replica::follow::FetchPosition;
use crate::replica::shared::PartitionId;

/// What a request has to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionRequest {
    /// 0 with the first request.
    pub(crate) session_id: i32,
    /// 0 with the first request.
    pub(crate) session_epoch: i32,
    /// Partitions that are new or moved on.
    pub(crate) asked: BTreeMap<PartitionId, FetchPosition>,
    /// Partitions that are not wanted any more.
    pub(crate) forgotten: Vec<PartitionId>,
}

/// The session as this broker knows it.
#[derive(Debug, Default)]
pub(crate) struct FollowerSession {
    id: i32,
    next_epoch: i32,
    /// What the leader knows, and the number of the request that told it.
    known: HashMap<PartitionId, (FetchPosition, u64)>,
    wanted: HashMap<PartitionId, FetchPosition>,
    /// Partitions whose `known` and `wanted` may differ.
    changed: Vec<PartitionId>,
    /// Requests sent and answered on this connection.
    sent: u64,
    answered: u64,
}

impl FollowerSession {
    /// The partition is to be fetched from there.
    pub(crate) fn want(&mut self, id: PartitionId, position: FetchPosition) {
        if self.wanted.insert(id, position) != Some(position) {
            self.changed.push(id);
        }
    }

    /// The partition is not to be fetched (for now).
    pub(crate) fn drop(&mut self, id: PartitionId) {
        if self.wanted.remove(&id).is_some() {
            self.changed.push(id);
        }
    }

    /// Whether the answer that is being read holds for the partition.
    ///
    /// With two requests on their way an answer may be to a position that is not the present one. To cut the log by it
    /// would cut records of which the leader has heard, by the later request, that this broker holds them.
    pub(crate) fn is_answered(&self, id: PartitionId) -> bool {
        self.known.get(&id).is_some_and(|(position, asked)| {
            *asked <= self.answered && self.wanted.get(&id) == Some(position)
        })
    }

    /// Whether anything is fetched.
    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether the leader is to be told something before it answers.
    pub(crate) fn has_changes(&self) -> bool {
        self.changed.iter().any(|id| self.known.get(id).map(|(position, _)| position) != self.wanted.get(id))
    }

    /// The connection or the session is gone: the next request begins anew.
    pub(crate) fn reset(&mut self) {
        self.id = 0;
        self.next_epoch = 0;
        self.answered = self.sent;
        self.known.clear();
        self.changed = self.wanted.keys().copied().collect();
    }

    /// Whether a request may be sent ahead: not before the session has an id.
    pub(crate) fn is_established(&self) -> bool {
        self.id != 0
    }

    /// What to send next; the session counts it as sent.
    pub(crate) fn next_request(&mut self) -> SessionRequest {
        let mut request = SessionRequest {
            session_id: self.id,
            session_epoch: self.next_epoch,
            ..SessionRequest::default()
        };
        self.sent += 1;
        for id in std::mem::take(&mut self.changed) {
            match self.wanted.get(&id) {
                Some(position) if self.known.get(&id).map(|(known, _)| known) != Some(position) => {
                    self.known.insert(id, (*position, self.sent));
                    request.asked.insert(id, *position);
                }
                None if self.known.remove(&id).is_some() => request.forgotten.push(id),
                _ => {}
            }
        }
        self.next_epoch = self.next_epoch.checked_add(1).unwrap_or(1);
        request
    }

    /// The leader answered without an error; with 0 it keeps no session, and every request names everything.
    pub(crate) fn answered(&mut self, session_id: i32) {
        self.answered += 1;
        self.id = session_id;
    }

    /// After an answer was read.
    pub(crate) fn end_answer(&mut self) {
        if self.id == 0 {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn id(index: i32) -> PartitionId {
        PartitionId { topic_id: Uuid::from_u128(1), index }
    }

    fn at(offset: i64) -> FetchPosition {
        FetchPosition { offset, log_start_offset: 0, last_fetched_epoch: -1, leader_epoch: 3 }
    }

    #[test]
    fn only_changes_are_said_once_the_session_is_established() {
        let mut session = FollowerSession::default();
        session.want(id(0), at(0));
        session.want(id(1), at(5));
        let first = session.next_request();
        assert_eq!((first.session_id, first.session_epoch, first.asked.len()), (0, 0, 2));
        session.answered(77);
        session.want(id(1), at(9));
        let second = session.next_request();
        assert_eq!((second.session_id, second.session_epoch), (77, 1));
        assert_eq!(second.asked, BTreeMap::from([(id(1), at(9))]));
        assert!(!session.has_changes());
        assert_eq!(
            session.next_request(),
            SessionRequest { session_id: 77, session_epoch: 2, ..Default::default() }
        );
    }

    #[test]
    fn a_dropped_partition_is_forgotten_and_may_come_back() {
        let mut session = FollowerSession::default();
        session.want(id(0), at(0));
        session.next_request();
        session.answered(77);
        session.drop(id(0));
        assert!(session.has_changes() && session.is_empty());
        assert_eq!(session.next_request().forgotten, [id(0)]);
        session.want(id(0), at(0));
        assert_eq!(session.next_request().asked.len(), 1);
    }

    #[test]
    fn after_a_reset_everything_is_said_again() {
        let mut session = FollowerSession::default();
        session.want(id(0), at(0));
        session.want(id(1), at(0));
        session.next_request();
        session.answered(77);
        session.drop(id(1));
        session.reset();
        let request = session.next_request();
        assert_eq!((request.session_id, request.session_epoch, request.asked.len()), (0, 0, 1));
        assert!(request.forgotten.is_empty());
    }

    #[test]
    fn an_answer_to_an_earlier_position_does_not_count() {
        let mut session = FollowerSession::default();
        session.want(id(0), at(0));
        session.want(id(1), at(0));
        session.next_request();
        session.answered(77);
        session.next_request();
        session.want(id(1), FetchPosition { leader_epoch: 4, ..at(0) });
        session.next_request();
        session.answered(77);
        assert!(session.is_answered(id(0)));
        assert!(!session.is_answered(id(1)), "this answers the request before the one with the new epoch");
        session.answered(77);
        assert!(session.is_answered(id(1)));
        session.want(id(0), at(5));
        assert!(!session.is_answered(id(0)), "moved on, and not asked yet");
    }

    #[test]
    fn without_a_session_every_request_names_everything() {
        let mut session = FollowerSession::default();
        session.want(id(0), at(0));
        session.next_request();
        session.answered(0);
        assert!(session.is_answered(id(0)));
        session.end_answer();
        let request = session.next_request();
        assert_eq!((request.session_id, request.session_epoch, request.asked.len()), (0, 0, 1));
    }
}
