//! What the controller is told of this broker's log directories (KIP-112, KIP-858, KIP-1066): in which of them replicas lie,
//! which have failed, and which take no new replicas.
//!
//! A directory that fails takes its partitions offline here first: nothing of it is served when the controller hears of it,
//! with the next heartbeat, and elects others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ottla_proto::controller as proto;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::controller_link::ControllerClient;
use crate::replica::ReplicaManager;

/// How often directories are looked at.
const CHECK_PAUSE: Duration = Duration::from_millis(500);
/// Replicas whose place is told in one command.
const ASSIGNMENTS_MAX: usize = 2_000;

/// What heartbeats say of the directories: level-triggered, each says all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryStates {
    /// Ids of those that have failed.
    pub offline: Vec<Uuid>,
    /// Ids of those that take no new replicas.
    pub cordoned: Vec<Uuid>,
}

/// Watches the directories until `stop`. `failed` is told when none is left.
pub(crate) async fn run(
    manager: Arc<ReplicaManager>,
    client: ControllerClient,
    states: watch::Sender<DirectoryStates>,
    failed: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let mut offline_seen = BTreeSet::new();
    // The image in which every replica was where it is.
    let mut settled_index = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = manager.shared().placement_changed.notified() => settled_index = None,
            () = tokio::time::sleep(CHECK_PAUSE) => {}
        }
        let directories = manager.directories();
        let mut now = DirectoryStates::default();
        for log_dir in directories.all() {
            let Some(id) = directories.id_of(log_dir) else { continue };
            if log_dir.is_cordoned() {
                now.cordoned.push(id);
            }
            if log_dir.is_offline() {
                now.offline.push(id);
                if offline_seen.insert(id) {
                    manager.take_offline(log_dir);
                }
            }
        }
        if !directories.all().is_empty() && now.offline.len() == directories.all().len() {
            failed.send_replace(Some("every log directory has failed".to_owned()));
        }
        states.send_if_modified(|known| {
            let is_new = *known != now;
            if is_new {
                known.clone_from(&now);
            }
            is_new
        });
        let index = manager.image().index();
        if directories.all().len() > 1 && settled_index != Some(index) {
            let is_settled = tokio::select! {
                () = stop.cancelled() => return,
                is_settled = tell_places(&manager, &client) => is_settled,
            };
            settled_index = is_settled.then_some(index);
        }
    }
}

/// Tells where replicas lie that the image has elsewhere; true: it has none so. What is refused is told again in the next
/// round.
async fn tell_places(manager: &ReplicaManager, client: &ControllerClient) -> bool {
    let assignments = misplaced(manager);
    if assignments.is_empty() {
        return true;
    }
    let command = proto::AssignReplicasToDirectories {
        broker_id: manager.shared().options.broker_id,
        broker_epoch: manager.shared().grant.broker_epoch(),
        assignments,
    };
    let command = proto::command::Command::AssignReplicasToDirectories(command);
    match client.submit_within(command, CHECK_PAUSE * 4).await {
        Ok(reply) => {
            if let Some(failure) = reply.failure.filter(|failure| failure.error_code != 0) {
                tracing::debug!(reason = failure.message, "the places of replicas were not taken");
            }
        }
        Err(error) => tracing::debug!(%error, "the places of replicas could not be told"),
    }
    false
}

fn misplaced(manager: &ReplicaManager) -> Vec<proto::DirectoryAssignment> {
    let image = manager.image();
    let own = manager.shared().options.broker_id.into();
    let mut found = Vec::new();
    for partition in manager.partitions() {
        let Some(actual) = manager.directories().id_of(&partition.log_dir()) else { continue };
        let known = image.partition(partition.topic_id().into(), partition.index());
        if known.is_some_and(|known| known.replicas.contains(&own) && known.directory(own) != actual) {
            found.push(proto::DirectoryAssignment {
                directory: bytes::Bytes::copy_from_slice(actual.as_bytes()),
                topic_id: bytes::Bytes::copy_from_slice(partition.topic_id().as_bytes()),
                partition: partition.index(),
            });
            if found.len() == ASSIGNMENTS_MAX {
                break;
            }
        }
    }
    found
}
