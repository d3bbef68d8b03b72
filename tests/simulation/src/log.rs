//! A partition's log as far as replication is concerned: entries, where leader epochs began, what is on disk.
//!
//! An entry is a batch of one record, so that offsets and batches are the same. The rules are those of `ottla-log`, which
//! is tested against its own disk; here they are without files, so that a million of them can be cloned.

/// One batch of one record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry<P> {
    /// Epoch of the leader that appended it.
    pub epoch: i32,
    /// What it holds.
    pub payload: P,
}

/// A log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplicaLog<P> {
    start: i64,
    entries: Vec<Entry<P>>,
    epochs: Vec<(i32, i64)>,
    synced_end: i64,
}

impl<P> Default for ReplicaLog<P> {
    fn default() -> Self {
        Self { start: 0, entries: Vec::new(), epochs: Vec::new(), synced_end: 0 }
    }
}

impl<P: Clone> ReplicaLog<P> {
    /// First offset.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Next offset.
    pub fn end(&self) -> i64 {
        self.start + i64::try_from(self.entries.len()).unwrap_or(i64::MAX)
    }

    /// All before is on disk.
    pub fn synced_end(&self) -> i64 {
        self.synced_end
    }

    /// Everything reaches the disk.
    pub fn sync(&mut self) -> i64 {
        self.synced_end = self.end();
        self.synced_end
    }

    /// What reached the disk when a sync was begun.
    pub fn synced_to(&mut self, end: i64) -> i64 {
        self.synced_end = self.synced_end.max(end.min(self.end()));
        self.synced_end
    }

    fn at(&self, offset: i64) -> usize {
        usize::try_from(offset.clamp(self.start, self.end()) - self.start).unwrap_or(0)
    }

    /// Entries from an offset to before another.
    pub fn slice(&self, from: i64, to: i64) -> &[Entry<P>] {
        let (from, to) = (self.at(from), self.at(to));
        &self.entries[from..to.max(from)]
    }

    /// An entry.
    pub fn get(&self, offset: i64) -> Option<&Entry<P>> {
        if offset < self.start { None } else { self.entries.get(self.at(offset)) }
    }

    /// Notes that an epoch begins at an offset.
    pub fn assign_epoch(&mut self, epoch: i32, start: i64) {
        if epoch < 0 || self.latest_epoch().is_some_and(|latest| latest >= epoch) {
            return;
        }
        self.epochs.retain(|(_, offset)| *offset <= start);
        self.epochs.push((epoch, start));
    }

    /// The latest epoch that is known.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.last().map(|(epoch, _)| *epoch)
    }

    /// The largest epoch that is at most the one asked for, and where it ends.
    pub fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let at = self.epochs.iter().rposition(|(known, _)| *known <= epoch)?;
        let end = self.epochs.get(at + 1).map_or(self.end(), |(_, start)| *start);
        Some((self.epochs[at].0, end))
    }

    /// Appends as the leader; gives the offset.
    pub fn append(&mut self, epoch: i32, payload: P) -> i64 {
        let offset = self.end();
        self.assign_epoch(epoch, offset);
        self.entries.push(Entry { epoch, payload });
        offset
    }

    /// Appends what a leader sent; what is of a later epoch than the leader's is left out. False: epochs would go back.
    pub fn append_as_follower(&mut self, entries: &[Entry<P>], leader_epoch: i32) -> bool {
        let mut last = self.entries.last().map_or(-1, |entry| entry.epoch);
        for entry in entries {
            if entry.epoch < last {
                return false;
            }
            if entry.epoch > leader_epoch {
                break;
            }
            if self.latest_epoch() > Some(entry.epoch) {
                // An epoch that this log began as leader, and wrote nothing in.
                let end = self.end();
                self.epochs.retain(|(_, start)| *start < end);
            }
            last = entry.epoch;
            self.append(entry.epoch, entry.payload.clone());
        }
        true
    }

    /// Cuts the log back to an offset.
    pub fn truncate_to(&mut self, offset: i64) {
        if offset < self.start {
            return self.start_over_at(offset);
        }
        let keep = self.at(offset);
        self.entries.truncate(keep);
        let end = self.end();
        self.epochs.retain(|(_, start)| *start < end);
        self.synced_end = self.synced_end.min(end);
    }

    /// Forgets everything.
    pub fn start_over_at(&mut self, offset: i64) {
        *self = Self { start: offset, entries: Vec::new(), epochs: Vec::new(), synced_end: offset };
    }

    /// Deletes what is before an offset.
    pub fn delete_before(&mut self, offset: i64) {
        if offset <= self.start {
            return;
        }
        let count = self.at(offset);
        self.entries.drain(..count);
        self.start = offset;
        self.synced_end = self.synced_end.max(offset);
        if let Some(at) = self.epochs.iter().rposition(|(_, start)| *start <= offset) {
            self.epochs.drain(..at);
            self.epochs[0].1 = offset;
        }
    }
}
