//! The newest applied entries, for followers: bounded, pulled by each at its own pace.
//!
//! They are held as they came, encoded: a decoded record takes ten times as much, for a partition that changes its leader, and
//! most entries are pulled once by each follower at the moment they are applied, and then never again.

use std::collections::VecDeque;

use bytes::Bytes;
use ottla_proto::controller::Delta;
use ottla_proto::metadata::MetadataBatch;
use prost::{DecodeError, Message};

/// Most entries that are held.
const ENTRIES_MAX: usize = 10_000;
/// Most bytes of entries that are held in memory; who is farther behind gets a snapshot.
const BYTES_MAX: usize = 2 << 20;
/// What an entry takes beside its records.
const ENTRY_BYTES: usize = size_of::<Held>() + 64;

/// What comes next for a follower.
#[derive(Debug)]
pub(crate) enum Next {
    /// This entry.
    Entry(Held),
    /// Nothing is applied yet at that index.
    Wait,
    /// Gone: only a snapshot helps.
    Missed(Missed),
}

/// The oldest index that is still held.
#[derive(Debug)]
pub(crate) struct Missed {
    /// See the type.
    pub(crate) oldest: i64,
}

/// An entry as it is held.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    index: i64,
    term: u64,
    /// An encoded `MetadataBatch`; empty: an entry of Raft's own.
    batch: Bytes,
}

impl Held {
    pub(super) fn new(index: i64, term: u64, batch: Bytes) -> Self {
        Self { index, term, batch }
    }

    /// As a follower gets it. It was decoded once, when it was applied, so that this does not fail.
    pub(crate) fn delta(&self) -> Result<Delta, DecodeError> {
        let records = MetadataBatch::decode(self.batch.clone())?.records;
        Ok(Delta { index: self.index, term: self.term, records })
    }

    fn bytes(&self) -> usize {
        self.batch.len() + ENTRY_BYTES
    }
}

#[derive(Debug, Default)]
pub(super) struct History {
    /// Index of the first entry held.
    first: i64,
    entries: VecDeque<Held>,
    bytes: usize,
}

impl History {
    /// Everything up to an index came with a snapshot.
    pub(super) fn restart(&mut self, index: i64) {
        *self = Self { first: index + 1, ..Self::default() };
    }

    /// The next entry in order.
    pub(super) fn push(&mut self, entry: Held) {
        if self.entries.is_empty() {
            self.first = entry.index;
        }
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > ENTRIES_MAX || (self.bytes > BYTES_MAX && self.entries.len() > 1) {
            if let Some(oldest) = self.entries.pop_front() {
                self.bytes -= oldest.bytes();
                self.first += 1;
            }
        }
    }

    pub(super) fn next(&self, index: i64) -> Next {
        match usize::try_from(index - self.first) {
            Err(_) => Next::Missed(Missed { oldest: self.first }),
            Ok(at) => self.entries.get(at).map_or(Next::Wait, |entry| Next::Entry(entry.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_given_by_index_and_old_ones_are_missed() {
        let mut history = History::default();
        history.restart(4);
        assert!(matches!(history.next(4), Next::Missed(Missed { oldest: 5 })));
        assert!(matches!(history.next(5), Next::Wait));
        for index in 5..20_000 {
            history.push(Held::new(index, 1, Bytes::new()));
        }
        assert!(matches!(history.next(5), Next::Missed(_)));
        assert!(matches!(history.next(19_999), Next::Entry(entry) if entry.index == 19_999));
        assert!(matches!(history.next(10_000), Next::Entry(entry) if entry.index == 10_000));
        assert!(matches!(history.next(20_000), Next::Wait));
    }

    #[test]
    fn no_more_bytes_are_held_than_allowed_and_the_newest_entry_always() {
        let mut history = History::default();
        for index in 0..10 {
            history.push(Held::new(index, 1, Bytes::from(vec![0; BYTES_MAX / 4])));
        }
        assert!(history.bytes <= BYTES_MAX);
        assert!(matches!(history.next(6), Next::Missed(Missed { oldest: 7 })));
        history.push(Held::new(10, 1, Bytes::from(vec![0; BYTES_MAX * 2])));
        assert!(matches!(history.next(9), Next::Missed(Missed { oldest: 10 })));
        assert!(matches!(history.next(10), Next::Entry(_)));
    }

    #[test]
    fn an_entry_is_given_as_it_was_applied() {
        use ottla_proto::metadata::{MetadataRecord, ProducerIdsRecord, metadata_record::Record};
        let record = Record::ProducerIds(ProducerIdsRecord { next_producer_id: 7, ..Default::default() });
        let records = vec![MetadataRecord { record: Some(record) }];
        let batch = MetadataBatch { records: records.clone() }.encode_to_vec();
        let delta = Held::new(3, 2, batch.into()).delta().unwrap();
        assert_eq!((delta.index, delta.term, delta.records), (3, 2, records));
        assert!(Held::new(4, 2, Bytes::new()).delta().unwrap().records.is_empty());
    }
}
