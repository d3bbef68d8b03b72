//! What a consumer makes of a fetch: read_committed passes over transactions that were aborted.

use std::collections::BTreeSet;

use super::batch::{Batch, Kind};
use crate::log::Entry;

/// What a consumer is given of an answer, as runs of one record: no markers, and (as Kafka's consumer does it) nothing of
/// transactions that were aborted, which begin at their first offset and end at their marker.
pub fn given(
    start: i64,
    entries: &[Entry<Batch>],
    committed: bool,
    mut aborted: Vec<(i64, i64)>,
) -> Vec<(i64, u32, u64, u32)> {
    aborted.sort_by_key(|(_, first)| *first);
    let mut aborted = aborted.into_iter().peekable();
    let mut passing_over = BTreeSet::new();
    let mut runs = Vec::new();
    for (offset, Entry { payload, .. }) in (start..).zip(entries) {
        while let Some((producer_id, _)) = aborted.next_if(|(_, first)| *first <= offset) {
            passing_over.insert(producer_id);
        }
        if let Kind::Marker { commit: false, .. } = payload.kind {
            passing_over.remove(&payload.producer_id);
        }
        let is_passed =
            committed && payload.is_transactional() && passing_over.contains(&payload.producer_id);
        if payload.is_data() && !is_passed {
            runs.push((offset, payload.writer, payload.number, 1));
        }
    }
    runs
}
