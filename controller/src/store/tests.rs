use openraft::storage::{RaftLogReader, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};

use super::*;
use crate::state_machine::StateMachine;
use crate::types::{Batch, RaftId, TypeConfig, Vote};

struct Builder;

impl StoreBuilder<TypeConfig, SledStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, SledStore, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_path_buf();
        let opened = tokio::task::spawn_blocking(move || {
            (SledStore::open(&path.join("raft")).unwrap(), StateMachine::open(path, None).unwrap())
        });
        let (store, machine) = opened.await.unwrap();
        Ok((directory, store, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_storage_suite_of_openraft_passes() {
    Suite::test_all(Builder).await.unwrap();
}

fn log_id(term: u64, index: u64) -> LogId {
    let leader =
        openraft::impls::leader_id_std::LeaderId { term, voted_for: RaftId { node_id: 1, incarnation: 7 } };
    LogId::new(openraft::vote::RaftLeaderId::to_committed(&leader), index)
}

fn entry(index: u64, bytes: usize) -> Entry {
    let fill = u8::try_from(index % 251).unwrap();
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(Batch(vec![fill; bytes].into())) }
}

fn reopen(store: SledStore, directory: &Path) -> SledStore {
    store.close();
    drop(store);
    SledStore::open(directory).unwrap()
}

#[test]
fn large_entries_are_chunked_and_leave_no_blob() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    let sizes = [0, 1, CHUNK_BYTES_MAX - 4, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 300_000, 2_000_000];
    let entries: Vec<_> = (0..).zip(sizes).map(|(index, bytes)| entry(index, bytes)).collect();
    store.write(entries.clone()).unwrap();
    store.commit.sync_blocking().unwrap();
    let store = reopen(store, directory.path());
    assert_eq!(store.read(0, u64::MAX).unwrap(), entries);
    assert_eq!(store.read(3, 5).unwrap(), entries[3..5]);
    assert_eq!(store.last_log_id().unwrap(), Some(log_id(1, 6)));
    assert!(
        std::fs::read_dir(directory.path().join("blobs")).map_or(true, |mut blobs| blobs.next().is_none())
    );
}

/// I16: a former leader does not lead its old term. A leader that was killed may lack entries that its followers committed.
#[tokio::test]
async fn a_leader_that_starts_again_does_not_lead_the_same_term() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    let mut store = tokio::task::spawn_blocking(move || SledStore::open(&path).unwrap()).await.unwrap();
    let own = RaftId { node_id: 1, incarnation: 7 };
    let other = RaftId { node_id: 2, incarnation: 9 };
    let won = |node| Vote { committed: true, ..Vote::new(4, node) };
    store.save_vote(&won(own)).await.unwrap();
    store.give_up_leadership(own).unwrap();
    assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new(4, own)), "the vote of the term stays cast");
    store.save_vote(&won(other)).await.unwrap();
    store.give_up_leadership(own).unwrap();
    assert_eq!(store.read_vote().await.unwrap(), Some(won(other)));
}

#[tokio::test]
async fn votes_and_progress_survive_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    let open = move || {
        let path = path.clone();
        async move { tokio::task::spawn_blocking(move || SledStore::open(&path).unwrap()).await.unwrap() }
    };
    let mut store = open().await;
    assert!(!store.is_used().unwrap());
    let vote = Vote::new(3, RaftId { node_id: 2, incarnation: 9 });
    store.save_vote(&vote).await.unwrap();
    store.write((0..600).map(|index| entry(index, 10))).unwrap();
    store.save_committed(Some(log_id(1, 500))).await.unwrap();
    store.purge(log_id(1, 400)).await.unwrap();
    store.truncate_after(Some(log_id(1, 550))).await.unwrap();
    store.close();
    drop(store);
    let mut store = open().await;
    assert!(store.is_used().unwrap());
    assert_eq!(store.read_vote().await.unwrap(), Some(vote));
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 500)));
    let state = store.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 400)), Some(log_id(1, 550))));
    let indices: Vec<_> = store.read(0, u64::MAX).unwrap().iter().map(|entry| entry.log_id.index).collect();
    assert_eq!(indices, (401..=550).collect::<Vec<_>>());
}

#[test]
fn a_purge_that_was_cut_short_is_finished_when_opened() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    store.write((0..10).map(|index| entry(index, 10))).unwrap();
    store.put(PURGED, &log_id(1, 4)).unwrap();
    store.commit.sync_blocking().unwrap();
    let store = reopen(store, directory.path());
    assert_eq!(store.read(0, u64::MAX).unwrap().first().map(|entry| entry.log_id.index), Some(5));
}

#[test]
fn blob_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    SledStore::open(directory.path()).unwrap().close();
    std::fs::create_dir_all(directory.path().join("blobs")).unwrap();
    std::fs::write(directory.path().join("blobs/1"), b"x").unwrap();
    assert!(matches!(SledStore::open(directory.path()), Err(StoreError::Blobs(_))));
}
