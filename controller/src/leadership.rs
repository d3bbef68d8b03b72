//! Who leads the quorum, as a value that can be watched.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use crate::types::Raft;

/// The leader of the metadata quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its node id.
    pub node_id: i32,
    /// `host:port` of its gRPC listener.
    pub endpoint: String,
    /// The Raft term: the controller epoch.
    pub term: u64,
}

/// The watched value.
#[derive(Clone)]
pub(crate) struct Leadership(watch::Receiver<Option<Leader>>);

impl Leadership {
    /// Follows a Raft node until it stops. `failed` gets why it stopped, if that was a failure.
    pub(crate) fn follow(
        raft: &Raft,
        voters: Arc<BTreeMap<i32, String>>,
        failed: Arc<watch::Sender<Option<String>>>,
    ) -> Self {
        let (sender, receiver) = watch::channel(None);
        let mut metrics = raft.metrics();
        tokio::spawn(async move {
            loop {
                let now = metrics.borrow_watched().clone();
                if let Err(fatal) = &now.running_state {
                    if !matches!(fatal, openraft::errors::Fatal::Stopped) {
                        failed.send_replace(Some(fatal.to_string()));
                    }
                    sender.send_replace(None);
                    return;
                }
                let leader = now.current_leader.map(|id| {
                    let known =
                        now.membership_config.membership().get_node(&id).map(|node| node.addr.clone());
                    let endpoint = voters.get(&id.node_id).cloned().or(known).unwrap_or_default();
                    Leader { node_id: id.node_id, endpoint, term: now.current_term }
                });
                sender.send_if_modified(|old| {
                    let changed = *old != leader;
                    *old = leader;
                    changed
                });
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// Who leads now; `None`: not known.
    pub(crate) fn leader(&self) -> Option<Leader> {
        self.0.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<Leader>> {
        self.0.clone()
    }
}
