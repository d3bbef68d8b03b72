//! States of ranges of offsets, as they are written, and how later ones go over earlier ones.

/// Offsets of one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateBatch {
    /// The first offset.
    pub first_offset: i64,
    /// The last offset.
    pub last_offset: i64,
    /// See [`crate::share_partition::RecordState`].
    pub delivery_state: i8,
    /// How often the records were delivered.
    pub delivery_count: i16,
}

impl StateBatch {
    /// Whether it is a range.
    pub(super) fn is_valid(&self) -> bool {
        0 <= self.first_offset && self.first_offset <= self.last_offset && self.last_offset < i64::MAX
    }
}

/// Later batches over earlier ones, without what lies before the start offset; neighbours of one state are one batch.
/// Batches that are no ranges are left out.
pub fn merge(earlier: &[StateBatch], later: &[StateBatch], start_offset: i64) -> Vec<StateBatch> {
    let mut merged = std::collections::BTreeMap::<i64, StateBatch>::new();
    for batch in earlier.iter().chain(later).filter(|batch| batch.is_valid()) {
        let batch = StateBatch { first_offset: batch.first_offset.max(start_offset), ..*batch };
        if batch.first_offset <= batch.last_offset {
            put(&mut merged, batch);
        }
    }
    let mut joined: Vec<StateBatch> = Vec::with_capacity(merged.len());
    for batch in merged.into_values() {
        match joined.last_mut() {
            Some(last)
                if last.last_offset + 1 == batch.first_offset
                    && last.delivery_state == batch.delivery_state
                    && last.delivery_count == batch.delivery_count =>
            {
                last.last_offset = batch.last_offset;
            }
            _ => joined.push(batch),
        }
    }
    joined
}

/// Puts a batch in the place of whatever is there.
fn put(merged: &mut std::collections::BTreeMap<i64, StateBatch>, batch: StateBatch) {
    let (first, last) = (batch.first_offset, batch.last_offset);
    if let Some((_, before)) = merged.range_mut(..first).next_back()
        && before.last_offset >= first
    {
        let behind = StateBatch { first_offset: last + 1, ..*before };
        let reaches_over = before.last_offset > last;
        before.last_offset = first - 1;
        if reaches_over {
            merged.insert(last + 1, behind);
        }
    }
    let covered: Vec<i64> = merged.range(first..=last).map(|(first, _)| *first).collect();
    for at in covered {
        if let Some(over) = merged.remove(&at)
            && over.last_offset > last
        {
            merged.insert(last + 1, StateBatch { first_offset: last + 1, ..over });
        }
    }
    merged.insert(first, batch);
}
