//! The applied state: the metadata image, and the entries that followers are given.
//!
//! It lives in memory; after a restart it is the newest snapshot file and the log behind it.

mod history;
pub(crate) mod snapshot_file;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use ottla_metadata::image::{LogIndex, MetadataImage};
use ottla_proto::metadata::MetadataBatch;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;

use crate::identity::Identity;
use crate::types::{
    Applied, LogId, Membership, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, image_index,
};
pub(crate) use history::Next;
use history::{Held, History};

/// What is applied, and from where it came.
#[derive(Debug, Clone, Default)]
struct Position {
    last_applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

struct Shared {
    directory: PathBuf,
    /// Remembers that this disk votes as soon as that is committed.
    identity: Option<Arc<Identity>>,
    image: ArcSwap<MetadataImage>,
    position: Mutex<Position>,
    history: Mutex<History>,
    /// Index of the last applied entry.
    applied: watch::Sender<i64>,
    /// Bytes of records that were applied since the newest snapshot.
    bytes_since_snapshot: AtomicU64,
    /// How many snapshots were written or taken in.
    snapshots: AtomicU64,
}

/// The state machine. Clones share it.
#[derive(Clone)]
pub(crate) struct StateMachine(Arc<Shared>);

impl StateMachine {
    /// Reads the newest snapshot of a directory, if there is one. Blocks.
    pub(crate) fn open(directory: PathBuf, identity: Option<Arc<Identity>>) -> io::Result<Self> {
        let machine = Self(Arc::new(Shared {
            directory,
            identity,
            image: ArcSwap::default(),
            position: Mutex::default(),
            history: Mutex::default(),
            applied: watch::Sender::new(-1),
            bytes_since_snapshot: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
        }));
        if let Some(snapshot) = snapshot_file::read(&machine.0.directory)? {
            machine.load(&snapshot)?;
        }
        Ok(machine)
    }

    /// The state now.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.0.image.load_full()
    }

    /// The last applied entry's term and index, and the image there.
    pub(crate) fn image_at(&self) -> (Option<LogId>, Arc<MetadataImage>) {
        let position = self.0.position.lock();
        (position.last_applied, self.image())
    }

    /// Bytes of records that were applied since the newest snapshot.
    pub(crate) fn bytes_since_snapshot(&self) -> u64 {
        self.0.bytes_since_snapshot.load(Ordering::Relaxed)
    }

    /// How many snapshots were written or taken in.
    pub(crate) fn snapshots(&self) -> u64 {
        self.0.snapshots.load(Ordering::Relaxed)
    }

    /// Where the voters are, when the membership is another than at `seen`, which then is this one.
    pub(crate) fn new_voter_endpoints(&self, seen: &mut Option<LogId>) -> Vec<String> {
        let position = self.0.position.lock();
        let at = *position.membership.log_id();
        if at == *seen {
            return Vec::new();
        }
        *seen = at;
        let membership = position.membership.membership();
        let voters = membership.voter_ids();
        voters.filter_map(|id| membership.get_node(&id)).map(|node| node.addr.clone()).collect()
    }

    /// Index of the last applied entry, as it moves.
    pub(crate) fn watch_applied(&self) -> watch::Receiver<i64> {
        self.0.applied.subscribe()
    }

    /// What follows an index for a follower.
    pub(crate) fn next(&self, index: i64) -> Next {
        self.0.history.lock().next(index)
    }

    /// What is applied is committed: nobody takes it back. On disk before anything else can happen to the membership: who
    /// has had a vote and has none does not ask for one by itself. Blocks the first time.
    fn note_own_vote(&self, membership: &Membership) -> io::Result<()> {
        let Some(identity) = &self.0.identity else { return Ok(()) };
        if identity.has_voted() || !membership.voter_ids().any(|id| id == identity.raft_id()) {
            return Ok(());
        }
        identity.note_voter().map_err(io::Error::other)
    }

    fn load(&self, snapshot: &Snapshot) -> io::Result<()> {
        self.note_own_vote(snapshot.meta.last_membership.membership())?;
        let index = snapshot.meta.last_log_id.as_ref().map_or(-1, image_index);
        let image = snapshot_file::to_image(index, &snapshot.snapshot)?;
        let mut position = self.0.position.lock();
        position.last_applied = snapshot.meta.last_log_id;
        position.membership = snapshot.meta.last_membership.clone();
        position.snapshot = Some(snapshot.meta.clone());
        self.0.bytes_since_snapshot.store(0, Ordering::Relaxed);
        self.0.snapshots.fetch_add(1, Ordering::Relaxed);
        self.0.image.store(Arc::new(image));
        self.0.history.lock().restart(index);
        drop(position);
        self.0.applied.send_replace(index);
        Ok(())
    }

    fn apply_entry(&self, entry: &crate::types::Entry) -> io::Result<()> {
        let index = image_index(&entry.log_id);
        let batch = match &entry.payload {
            EntryPayload::Normal(batch) => batch.0.clone(),
            EntryPayload::Blank | EntryPayload::Membership(_) => Bytes::new(),
        };
        let bytes = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.0.bytes_since_snapshot.fetch_add(bytes, Ordering::Relaxed);
        let records = MetadataBatch::decode(batch.clone()).map_err(io::Error::other)?.records;
        // An error stops the node: going on would give an image that others do not have.
        let (image, _) = self.0.image.load().apply(LogIndex(index), &records).map_err(io::Error::other)?;
        let mut position = self.0.position.lock();
        position.last_applied = Some(entry.log_id);
        if let EntryPayload::Membership(membership) = &entry.payload {
            position.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
        }
        self.0.image.store(Arc::new(image));
        self.0.history.lock().push(Held::new(
            index,
            entry.log_id.leader_id.term,
            Bytes::copy_from_slice(&batch),
        ));
        drop(position);
        self.0.applied.send_replace(index);
        Ok(())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (position, image) = {
            let position = self.0.position.lock();
            self.0.bytes_since_snapshot.store(0, Ordering::Relaxed);
            (position.clone(), self.image())
        };
        let meta = SnapshotMeta { last_log_id: position.last_applied, last_membership: position.membership };
        let directory = self.0.directory.clone();
        let written = meta.clone();
        let body = tokio::task::spawn_blocking(move || {
            let term = written.last_log_id.as_ref().map_or(0, |id| id.leader_id.term);
            let body = snapshot_file::from_image(&image, term);
            snapshot_file::write(&directory, &written, &body).map(|()| body)
        })
        .await
        .map_err(io::Error::other)??;
        self.0.position.lock().snapshot = Some(meta.clone());
        self.0.snapshots.fetch_add(1, Ordering::Relaxed);
        Ok(Snapshot { meta, snapshot: body })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let position = self.0.position.lock();
        Ok((position.last_applied, position.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            if let EntryPayload::Membership(membership) = &entry.payload {
                let (machine, membership) = (self.clone(), membership.clone());
                tokio::task::spawn_blocking(move || machine.note_own_vote(&membership))
                    .await
                    .map_err(io::Error::other)??;
            }
            self.apply_entry(&entry)?;
            if let Some(responder) = responder {
                responder.send(Applied);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, body: Bytes) -> io::Result<()> {
        let snapshot = Snapshot { meta: meta.clone(), snapshot: body };
        let machine = self.clone();
        tokio::task::spawn_blocking(move || {
            // On disk before it counts: the log before it is purged next.
            snapshot_file::write(&machine.0.directory, &snapshot.meta, &snapshot.snapshot)?;
            machine.load(&snapshot)
        })
        .await
        .map_err(io::Error::other)?
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        if self.0.position.lock().snapshot.is_none() {
            return Ok(None);
        }
        let directory = self.0.directory.clone();
        tokio::task::spawn_blocking(move || snapshot_file::read(&directory))
            .await
            .map_err(io::Error::other)?
    }
}
