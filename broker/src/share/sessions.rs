//! Share sessions of this broker, and what follows when they end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ottla_coordinator::share_partition::session::{Partition, SessionFetch, SessionKey};
use ottla_wire::error_code::ErrorCode;

use super::ShareService;

/// A client's connection as far as share sessions go: when it breaks, they end.
pub(crate) struct ShareConnection {
    id: u64,
    service: Arc<ShareService>,
}

impl std::fmt::Debug for ShareConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShareConnection({})", self.id)
    }
}

impl ShareConnection {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for ShareConnection {
    fn drop(&mut self) {
        let ended = self.service.sessions.lock().remove_connection(self.id);
        for key in ended {
            tracing::debug!(
                group = &*key.group_id,
                member = &*key.member_id,
                "a share session's connection broke"
            );
            self.service.session_ended(&key);
        }
    }
}

impl ShareService {
    /// A connection that has asked for the first time.
    pub(crate) fn connected(self: &Arc<Self>) -> ShareConnection {
        ShareConnection { id: self.connections.fetch_add(1, Ordering::Relaxed), service: Arc::clone(self) }
    }

    /// Begins or goes on with a session: the partitions to look at.
    pub(crate) fn session_fetch(
        &self,
        key: &SessionKey,
        fetch: SessionFetch<'_>,
    ) -> Result<Vec<Partition>, ErrorCode> {
        self.sessions.lock().fetch(key, fetch)
    }

    /// A ShareAcknowledge of a session.
    pub(crate) fn session_acknowledge(&self, key: &SessionKey, epoch: i32) -> Result<(), ErrorCode> {
        self.sessions.lock().acknowledge(key, epoch)
    }

    /// The member ends its session.
    pub(crate) fn end_session(self: &Arc<Self>, key: &SessionKey) {
        if self.sessions.lock().remove(key).is_some() {
            self.session_ended(key);
        }
    }

    fn session_ended(self: &Arc<Self>, key: &SessionKey) {
        self.release(&key.group_id, &key.member_id);
        self.drop_unused(&key.group_id);
    }
}
