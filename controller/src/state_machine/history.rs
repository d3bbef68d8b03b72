//! The newest applied entries, for followers: bounded, pulled by each at its own pace.

use std::collections::VecDeque;
use std::sync::Arc;

use ottla_proto::controller::Delta;
use prost::Message;

/// Most entries that are held.
const ENTRIES_MAX: usize = 10_000;
/// Most bytes of entries that are held in memory; who is farther behind gets a snapshot.
const BYTES_MAX: usize = 8 << 20;
/// What a decoded record takes beside its fields' bytes: ten times its encoding, for a partition that changes its leader.
const RECORD_BYTES: usize = size_of::<ottla_proto::metadata::MetadataRecord>() + 128;

/// What comes next for a follower.
#[derive(Debug)]
pub(crate) enum Next {
    /// This entry.
    Entry(Arc<Delta>),
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

#[derive(Debug, Default)]
pub(super) struct History {
    /// Index of the first entry held.
    first: i64,
    entries: VecDeque<(Arc<Delta>, usize)>,
    bytes: usize,
}

impl History {
    /// Everything up to an index came with a snapshot.
    pub(super) fn restart(&mut self, index: i64) {
        *self = Self { first: index + 1, ..Self::default() };
    }

    /// The next entry in order.
    pub(super) fn push(&mut self, delta: Delta) {
        let bytes = delta.encoded_len() + delta.records.len() * RECORD_BYTES;
        if self.entries.is_empty() {
            self.first = delta.index;
        }
        self.entries.push_back((Arc::new(delta), bytes));
        self.bytes += bytes;
        while self.entries.len() > ENTRIES_MAX || (self.bytes > BYTES_MAX && self.entries.len() > 1) {
            if let Some((_, bytes)) = self.entries.pop_front() {
                self.bytes -= bytes;
                self.first += 1;
            }
        }
    }

    pub(super) fn next(&self, index: i64) -> Next {
        match usize::try_from(index - self.first) {
            Err(_) => Next::Missed(Missed { oldest: self.first }),
            Ok(at) => self.entries.get(at).map_or(Next::Wait, |(delta, _)| Next::Entry(Arc::clone(delta))),
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
            history.push(Delta { index, ..Delta::default() });
        }
        assert!(matches!(history.next(5), Next::Missed(_)));
        assert!(matches!(history.next(19_999), Next::Entry(delta) if delta.index == 19_999));
        assert!(matches!(history.next(10_000), Next::Entry(delta) if delta.index == 10_000));
        assert!(matches!(history.next(20_000), Next::Wait));
    }
}
