//! What a pass knows of transactions as it walks: which data was aborted, and which markers have no data left.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use ottla_wire::records::{BatchHeader, EndTransaction};

use crate::transaction_index::Aborted;

/// An aborted transaction that has begun and not ended at the place of the walk.
#[derive(Debug)]
struct Open {
    aborted: Aborted,
    /// Batches of it are still there.
    has_data: bool,
}

/// The walk's state; offsets only rise.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Not begun yet, by first offset.
    ahead: VecDeque<Aborted>,
    aborted: HashMap<i64, Open>,
    /// Producers with data in a transaction that is committed, or not known to be aborted.
    committed: HashSet<i64>,
}

impl Transactions {
    /// A walk that begins at an offset, over a log with these aborted transactions.
    pub(super) fn new(aborted: &[Aborted], from: i64) -> Self {
        let mut ahead: Vec<Aborted> =
            aborted.iter().filter(|aborted| aborted.last_offset >= from).copied().collect();
        ahead.sort_by_key(|aborted| (aborted.first_offset, aborted.last_offset));
        Self { ahead: ahead.into(), ..Self::default() }
    }

    fn begin_up_to(&mut self, offset: i64) {
        while self.ahead.front().is_some_and(|aborted| aborted.first_offset <= offset) {
            let Some(aborted) = self.ahead.pop_front() else { return };
            let open = Open { aborted, has_data: false };
            match self.aborted.entry(aborted.producer_id) {
                Entry::Vacant(place) => drop(place.insert(open)),
                // The one before has ended, and its marker is gone.
                Entry::Occupied(mut place) if place.get().aborted.last_offset < aborted.first_offset => {
                    place.insert(open);
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    /// A batch of data: whether its transaction was aborted.
    pub(super) fn is_aborted(&mut self, header: &BatchHeader) -> bool {
        self.begin_up_to(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        let open = self.aborted.get_mut(&header.producer_id);
        // Behind its marker, should that be gone, a producer's data is not aborted any more.
        if let Some(open) = open.filter(|open| header.last_offset() <= open.aborted.last_offset) {
            open.has_data = true;
            return true;
        }
        self.committed.insert(header.producer_id);
        false
    }

    /// A marker: whether nothing of its transaction is left, and, of an aborted one of which something was seen, the entry that
    /// the transaction index needs for those who read while the data is still there. A marker without a record (`None`)
    /// only keeps a producer's epoch.
    pub(super) fn end(
        &mut self,
        header: &BatchHeader,
        end: Option<EndTransaction>,
    ) -> (bool, Option<Aborted>) {
        self.begin_up_to(header.last_offset());
        match end {
            None => (true, None),
            Some(EndTransaction::Commit) => (!self.committed.remove(&header.producer_id), None),
            Some(EndTransaction::Abort) => match self.aborted.remove(&header.producer_id) {
                Some(open) if open.has_data => (false, Some(open.aborted)),
                _ => (true, None),
            },
        }
    }
}
