//! What administrators see: DescribeTransactions and ListTransactions (KIP-664, KIP-994, KIP-1152).

use std::collections::BTreeMap;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::TransactionCoordinator;
use super::state::TransactionState;

/// A transactional id in all detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionDescription {
    /// Where it stands.
    pub state: TransactionState,
    /// Milliseconds that a transaction may be open.
    pub timeout_ms: i32,
    /// Milliseconds since the Unix epoch, or -1.
    pub start_ms: i64,
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// What the open or prepared transaction touches, by topic.
    pub topics: BTreeMap<Text, Vec<i32>>,
}

/// A transactional id in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionListing {
    /// The id.
    pub transactional_id: Text,
    /// The producer.
    pub producer_id: i64,
    /// Where it stands.
    pub state: TransactionState,
}

/// Which transactional ids to list: those that pass all that is given.
#[derive(Default)]
pub struct TransactionFilter<'a> {
    /// Empty: in any state.
    pub states: Vec<TransactionState>,
    /// There were names of states, but none is known: nothing passes.
    pub only_unknown_states: bool,
    /// Empty: of any producer.
    pub producer_ids: Vec<i64>,
    /// Begun longer ago than so many milliseconds. None (the protocol's negative number): any.
    pub duration_ms: Option<i64>,
    /// Whether an id matches the pattern as a whole; the shell compiles it. None: any.
    pub matches: Option<&'a dyn Fn(&str) -> bool>,
}

impl TransactionFilter<'_> {
    /// The states of these names, and the names that are none.
    pub fn parse_states(names: &[Text]) -> (Vec<TransactionState>, Vec<Text>) {
        let (mut states, mut unknown) = (Vec::new(), Vec::new());
        for name in names {
            match TransactionState::from_name(name) {
                Some(state) => states.push(state),
                None => unknown.push(name.clone()),
            }
        }
        (states, unknown)
    }
}

impl TransactionCoordinator {
    /// One transactional id.
    pub fn describe(&self, transactional_id: &str) -> Result<TransactionDescription, ErrorCode> {
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        if self.leading.is_none() {
            return Err(ErrorCode::NotCoordinator);
        }
        let found = self.durable.transaction(transactional_id).ok_or(ErrorCode::TransactionalIdNotFound)?;
        let mut topics: BTreeMap<Text, Vec<i32>> = BTreeMap::new();
        for partition in &found.partitions {
            topics.entry(partition.topic.clone()).or_default().push(partition.partition);
        }
        Ok(TransactionDescription {
            state: found.state,
            timeout_ms: found.timeout_ms,
            start_ms: found.start_ms,
            producer_id: found.producer_id,
            producer_epoch: found.producer_epoch,
            topics,
        })
    }

    /// The transactional ids that pass the filter. `wall_ms`: milliseconds since the Unix epoch.
    pub fn list(
        &self,
        wall_ms: i64,
        filter: &TransactionFilter<'_>,
    ) -> Result<Vec<TransactionListing>, ErrorCode> {
        if self.leading.is_none() {
            return Err(ErrorCode::NotCoordinator);
        }
        if filter.only_unknown_states {
            return Ok(Vec::new());
        }
        let is_old_enough = |start_ms: i64| {
            let has_run_for_ms = wall_ms.saturating_sub(start_ms);
            filter.duration_ms.is_none_or(|duration_ms| start_ms >= 0 && has_run_for_ms > duration_ms)
        };
        let passing = self.durable.transactions().filter(|(id, found)| {
            (filter.states.is_empty() || filter.states.contains(&found.state))
                && (filter.producer_ids.is_empty() || filter.producer_ids.contains(&found.producer_id))
                && is_old_enough(found.start_ms)
                && filter.matches.is_none_or(|matches| matches(id))
        });
        Ok(passing
            .map(|(id, found)| TransactionListing {
                transactional_id: id.clone(),
                producer_id: found.producer_id,
                state: found.state,
            })
            .collect())
    }
}
