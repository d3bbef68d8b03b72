//! openraft's log storage on top of the store.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::{COMMITTED, PURGED, SledStore, VOTE, log_key};
use crate::types::{Entry, LogId, TypeConfig, Vote};

impl RaftLogReader<TypeConfig> for SledStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let until = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        if from >= until {
            return Ok(Vec::new());
        }
        self.read(from, until)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.get(VOTE)
    }
}

impl RaftLogStorage<TypeConfig> for SledStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let purged: Option<LogId> = self.get(PURGED)?;
        Ok(LogState { last_purged_log_id: purged, last_log_id: self.last_log_id()?.max(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.put(VOTE, vote)?;
        self.commit.sync().await
    }

    // Not synced: an older value only means that entries are applied later after a restart.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.put(COMMITTED, &committed)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.get::<Option<LogId>>(COMMITTED)?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.write(entries)?;
        self.commit.sync_then(callback);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        self.delete_backwards(&log_key(from, 0))?;
        self.commit.sync().await
    }

    async fn purge(&mut self, to: LogId) -> io::Result<()> {
        // The marker first: what is deleted is then never missed.
        self.put(PURGED, &to)?;
        self.delete(&log_key(0, 0), Some(&log_key(to.index, u16::MAX)))
    }
}
