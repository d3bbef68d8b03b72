//! From the committed decision to the end of a transaction: a marker in each of its partitions, then one more record.
//!
//! A marker is sent until its partition has answered that it is written, or that it can never be. It may be written
//! twice, which changes nothing; its producer epoch and coordinator epoch keep a late one out of the next transaction
//! (I66). Only when all partitions have answered may the producer begin the next transaction.

use std::collections::BTreeSet;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::command::{Effects, MarkerOutcome, MarkerToken, SendMarkers};
use super::decide;
use super::state::{TransactionMetadata, TransactionState};
use super::{MARKER_RETRY_PAUSE_MS, Then, TransactionCoordinator};
use crate::group::{Now, TopicPartition};

/// The end of one transaction.
#[derive(Debug, Clone)]
pub(super) struct MarkersOnTheirWay {
    token: MarkerToken,
    /// Partitions that have not confirmed theirs.
    unconfirmed: BTreeSet<TopicPartition>,
    /// Those of them whose marker is to be sent again.
    failed: BTreeSet<TopicPartition>,
    /// Where this node's timer for the id stands.
    retry_at_ms: Option<u64>,
    /// A partition has heard from a later coordinator: this one is done.
    is_superseded: bool,
}

/// What an outcome means for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Nothing is left to do in it.
    Done,
    /// To be sent again.
    Again,
    /// A later coordinator has taken over.
    Superseded,
}

fn meaning(outcome: MarkerOutcome) -> Meaning {
    match outcome {
        MarkerOutcome::Gone | MarkerOutcome::Answered(ErrorCode::None) => Meaning::Done,
        // The partition's producer is past this epoch, so that no record of this transaction can be open there or get in;
        // or its format has no transactions at all. No marker will ever be taken.
        MarkerOutcome::Answered(
            ErrorCode::InvalidProducerEpoch
            | ErrorCode::ProducerFenced
            | ErrorCode::UnsupportedForMessageFormat,
        ) => Meaning::Done,
        MarkerOutcome::Answered(ErrorCode::TransactionCoordinatorFenced) => Meaning::Superseded,
        MarkerOutcome::NoAnswer | MarkerOutcome::Answered(_) => Meaning::Again,
    }
}

impl TransactionCoordinator {
    /// The id is prepared, and that is committed.
    pub(super) fn begin_markers(&mut self, now: Now, id: &Text, effects: &mut Effects) {
        let (Some(coordinator_epoch), Some(prepared)) = (self.leading, self.durable.transaction(id)) else {
            return;
        };
        self.last_token += 1;
        let token = MarkerToken { coordinator_epoch, number: self.last_token };
        if !prepared.partitions.is_empty() {
            let partitions = prepared.partitions.iter().cloned().collect();
            effects.markers.push(send(id, prepared, token, coordinator_epoch, partitions));
        }
        let markers = MarkersOnTheirWay {
            token,
            unconfirmed: prepared.partitions.clone(),
            failed: BTreeSet::new(),
            retry_at_ms: None,
            is_superseded: false,
        };
        let is_done = markers.unconfirmed.is_empty();
        let before = self.live.entry(id.clone()).or_default().markers.replace(markers);
        self.forget(id, before.as_ref());
        self.tokens.insert(token, id.clone());
        if is_done {
            self.complete(now, id, effects);
        }
    }

    /// What became of markers: each partition of a [`SendMarkers`], in any order, in parts, even twice. Answers that
    /// come after the end of the transaction or of the leadership change nothing.
    pub fn markers_answered(
        &mut self,
        now: Now,
        token: MarkerToken,
        outcomes: &[(TopicPartition, MarkerOutcome)],
        effects: &mut Effects,
    ) {
        let Some(id) = self.tokens.get(&token).cloned() else { return };
        let Some(live) = self.live.get_mut(&id) else { return };
        let Some(markers) = live.markers.as_mut().filter(|markers| markers.token == token) else { return };
        if markers.is_superseded || markers.unconfirmed.is_empty() {
            return;
        }
        for (partition, outcome) in outcomes {
            match meaning(*outcome) {
                Meaning::Done => {
                    markers.unconfirmed.remove(partition);
                    markers.failed.remove(partition);
                }
                Meaning::Again if markers.unconfirmed.contains(partition) => {
                    markers.failed.insert(partition.clone());
                }
                Meaning::Again => {}
                Meaning::Superseded => markers.is_superseded = true,
            }
        }
        if markers.is_superseded {
            markers.failed.clear();
        } else if markers.unconfirmed.is_empty() {
            self.complete(now, &id, effects);
        } else if !markers.failed.is_empty() {
            self.retry_later(now, &id);
        }
    }

    /// Every partition knows: the record that ends the transaction.
    fn complete(&mut self, now: Now, id: &Text, effects: &mut Effects) {
        let Some(prepared) = self.durable.transaction(id).filter(|found| found.state.is_prepared()) else {
            return;
        };
        let next = decide::complete(prepared, now.wall_ms);
        if !self.write(id, &next, Then::Completed, effects) {
            self.retry_later(now, id);
        }
    }

    /// The transaction is over, and that is committed.
    pub(super) fn end_markers(&mut self, id: &Text) {
        let before = self.live.get_mut(id).and_then(|live| live.markers.take());
        self.forget(id, before.as_ref());
    }

    fn forget(&mut self, id: &Text, markers: Option<&MarkersOnTheirWay>) {
        let Some(markers) = markers else { return };
        self.tokens.remove(&markers.token);
        if let Some(at_ms) = markers.retry_at_ms {
            self.timers.remove(&(at_ms, id.clone()));
        }
    }

    pub(super) fn retry_later(&mut self, now: Now, id: &Text) {
        let Some(markers) = self.live.get_mut(id).and_then(|live| live.markers.as_mut()) else { return };
        if markers.retry_at_ms.is_none() {
            let at_ms = now.monotonic_ms.saturating_add(MARKER_RETRY_PAUSE_MS);
            markers.retry_at_ms = Some(at_ms);
            self.timers.insert((at_ms, id.clone()));
        }
    }

    /// Does what has become due: markers that failed are sent again, and so are records that end transactions; additions
    /// have waited long enough.
    pub fn tick(&mut self, now: Now, effects: &mut Effects) {
        while let Some((_, id)) = self.timers.first().filter(|(at_ms, _)| *at_ms <= now.monotonic_ms).cloned()
        {
            self.timers.pop_first();
            self.try_again(now, &id, effects);
        }
        self.end_waits(now, effects);
    }

    fn try_again(&mut self, now: Now, id: &Text, effects: &mut Effects) {
        let (Some(coordinator_epoch), Some(prepared)) = (self.leading, self.durable.transaction(id)) else {
            return;
        };
        let Some(live) = self.live.get_mut(id) else { return };
        let Some(markers) = live.markers.as_mut() else { return };
        markers.retry_at_ms = None;
        if markers.unconfirmed.is_empty() {
            if !live.is_changing {
                self.complete(now, id, effects);
            }
            return;
        }
        let partitions: Vec<TopicPartition> = std::mem::take(&mut markers.failed).into_iter().collect();
        if !partitions.is_empty() {
            effects.markers.push(send(id, prepared, markers.token, coordinator_epoch, partitions));
        }
    }
}

fn send(
    id: &Text,
    prepared: &TransactionMetadata,
    token: MarkerToken,
    coordinator_epoch: i32,
    partitions: Vec<TopicPartition>,
) -> SendMarkers {
    SendMarkers {
        token,
        transactional_id: id.clone(),
        producer_id: prepared.producer_id,
        producer_epoch: prepared.producer_epoch,
        commit: prepared.state == TransactionState::PrepareCommit,
        coordinator_epoch,
        transaction_version: prepared.client_version,
        partitions,
    }
}
