//! A transactional producer. It speaks both protocols: with `transaction.version` 2 (KIP-890) partitions add themselves and
//! each end raises the epoch; below, partitions and offsets are added by hand.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use bytes::Bytes;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest,
    InitProducerIdRequest, OffsetFetchRequest, Request, TxnOffsetCommitRequest,
    add_partitions_to_txn_request, offset_fetch_request, txn_offset_commit_request,
};
use ottla_wire::text::Text;

use super::ClientError;
use super::batch::{self, Fate, PRODUCE_VERSION, PRODUCE_VERSION_ADDED, Target};
use super::cluster::{Cluster, RETRY_PAUSE};

/// The feature that decides between the two protocols.
const FEATURE: &str = "transaction.version";
// Newest versions that are asked. AddPartitionsToTxn from 4 on is for brokers.
const FIND_COORDINATOR_VERSION: i16 = 3;
const INIT_PRODUCER_ID_VERSION: i16 = 5;
const ADD_PARTITIONS_VERSION: i16 = 3;
const ADD_OFFSETS_VERSION: i16 = 4;
const OFFSET_FETCH_VERSION: i16 = 7;
/// EndTxn and TxnOffsetCommit below and from `transaction.version` 2 on.
const END_VERSIONS: [i16; 2] = [4, 5];
const OFFSETS_VERSIONS: [i16; 2] = [4, 5];
/// What FindCoordinator calls the two kinds.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// How an end went.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As it was asked for.
    Done,
    /// The cluster refused at the first attempt: what was open is aborted.
    Refused(ClientError),
    /// Nobody knows.
    Unknown(ClientError),
}

/// A producer with a transactional id.
#[derive(Debug)]
pub(crate) struct Transactional {
    pub(crate) cluster: Cluster,
    id: String,
    timeout_ms: i32,
    producer_id: i64,
    producer_epoch: i16,
    /// Whether the cluster speaks the second protocol.
    second: bool,
    coordinators: HashMap<(i8, String), String>,
    sequences: HashMap<(String, i32), i32>,
    added: HashSet<(String, i32)>,
    has_offsets: bool,
}

impl Transactional {
    /// A producer that must be [`init`](Self::init)ialised first. `timeout_ms`: the cluster aborts what is open for longer.
    pub(crate) fn new(cluster: Cluster, id: String, timeout_ms: i32) -> Self {
        Self {
            cluster,
            id,
            timeout_ms,
            producer_id: -1,
            producer_epoch: -1,
            second: false,
            coordinators: HashMap::new(),
            sequences: HashMap::new(),
            added: HashSet::new(),
            has_offsets: false,
        }
    }

    /// Id and epoch for the batches of the transaction that is open.
    pub(crate) fn producer(&self) -> (i64, i16) {
        (self.producer_id, self.producer_epoch)
    }

    /// The sequence of the next batch of a partition.
    pub(crate) fn sequence(&self, topic: &str, partition: i32) -> i32 {
        self.sequences.get(&(topic.to_owned(), partition)).copied().unwrap_or(0)
    }

    /// As a process that begins: what is open under this id is ended, and older producers of it are fenced.
    pub(crate) async fn init(&mut self, deadline: Instant) -> Result<(), ClientError> {
        self.second = self.cluster.feature(FEATURE).await.unwrap_or(0) >= 2;
        let request = InitProducerIdRequest {
            transactional_id: Some(Text::from(&self.id)),
            transaction_timeout_ms: self.timeout_ms,
            ..InitProducerIdRequest::default()
        };
        loop {
            let error = match self.ask(TRANSACTION, &request, INIT_PRODUCER_ID_VERSION).await {
                Ok(answer) if answer.error_code == 0 => {
                    self.take_producer(answer.producer_id, answer.producer_epoch);
                    return Ok(());
                }
                Ok(answer) => self.refused("InitProducerId", answer.error_code),
                Err(error) => error,
            };
            self.pause(error, deadline).await?;
        }
    }

    fn take_producer(&mut self, producer_id: i64, producer_epoch: i16) {
        if (producer_id, producer_epoch) != (self.producer_id, self.producer_epoch) {
            // Sequences begin anew with each epoch.
            self.sequences.clear();
        }
        (self.producer_id, self.producer_epoch) = (producer_id, producer_epoch);
        self.forget_transaction();
    }

    fn forget_transaction(&mut self) {
        self.added.clear();
        self.has_offsets = false;
    }

    /// Writes a batch that was built with [`Self::producer`] and [`Self::sequence`].
    pub(crate) async fn send(
        &mut self,
        (topic, partition): (&str, i32),
        batch: &Bytes,
        records: i32,
        deadline: Instant,
    ) -> Fate {
        if let Err(error) = self.add_partition(topic, partition, deadline).await {
            return Fate::Refused(error);
        }
        let version = if self.second { PRODUCE_VERSION } else { PRODUCE_VERSION_ADDED };
        let target = Target { topic, partition, acks: -1, transactional_id: Some(&self.id), version };
        let fate = batch::send(&mut self.cluster, target, batch, deadline).await;
        if matches!(fate, Fate::Written(_)) {
            let sequence = self.sequences.entry((topic.to_owned(), partition)).or_default();
            // Sequences count up to the largest i32 and go on with 0.
            *sequence = sequence.wrapping_add(records) & i32::MAX;
            self.added.insert((topic.to_owned(), partition));
        }
        fate
    }

    async fn add_partition(
        &mut self,
        topic: &str,
        partition: i32,
        deadline: Instant,
    ) -> Result<(), ClientError> {
        if self.second || self.added.contains(&(topic.to_owned(), partition)) {
            return Ok(());
        }
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: Text::from(&self.id),
            v3_and_below_producer_id: self.producer_id,
            v3_and_below_producer_epoch: self.producer_epoch,
            v3_and_below_topics: vec![add_partitions_to_txn_request::V3AndBelowTopic {
                name: Text::from(topic),
                partitions: vec![partition],
            }],
            ..AddPartitionsToTxnRequest::default()
        };
        loop {
            let error = match self.ask(TRANSACTION, &request, ADD_PARTITIONS_VERSION).await {
                Ok(answer) => {
                    let results = answer.results_by_topic_v3_and_below.into_iter();
                    let code = results
                        .flat_map(|topic| topic.results_by_partition)
                        .map(|one| one.partition_error_code)
                        .find(|code| *code != 0);
                    let Some(code) = code else { return Ok(()) };
                    self.refused("AddPartitionsToTxn", code)
                }
                Err(error) => error,
            };
            self.pause(error, deadline).await?;
        }
    }

    /// Puts a group's offsets into the transaction.
    pub(crate) async fn commit_offsets(
        &mut self,
        group: &str,
        topic: &str,
        offsets: &BTreeMap<i32, i64>,
        deadline: Instant,
    ) -> Result<(), ClientError> {
        if !self.second && !self.has_offsets {
            self.add_offsets(group, deadline).await?;
        }
        let partitions = offsets
            .iter()
            .map(|(partition_index, committed_offset)| txn_offset_commit_request::Partition {
                partition_index: *partition_index,
                committed_offset: *committed_offset,
                committed_metadata: Some(Text::new()),
                ..txn_offset_commit_request::Partition::default()
            })
            .collect();
        let request = TxnOffsetCommitRequest {
            transactional_id: Text::from(&self.id),
            group_id: Text::from(group),
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            topics: vec![txn_offset_commit_request::Topic { name: Text::from(topic), partitions }],
            ..TxnOffsetCommitRequest::default()
        };
        loop {
            let version = OFFSETS_VERSIONS[usize::from(self.second)];
            let error = match self.ask_of((GROUP, group), &request, version).await {
                Ok(answer) => {
                    let all = answer.topics.into_iter().flat_map(|topic| topic.partitions);
                    let code = all.map(|one| one.error_code).find(|code| *code != 0);
                    let Some(code) = code else { return Ok(()) };
                    ClientError::refused(format!("group {group}: TxnOffsetCommit"), code)
                }
                Err(error) => error,
            };
            self.forget_coordinator(GROUP, group, &error);
            self.pause(error, deadline).await?;
        }
    }

    async fn add_offsets(&mut self, group: &str, deadline: Instant) -> Result<(), ClientError> {
        let request = AddOffsetsToTxnRequest {
            transactional_id: Text::from(&self.id),
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            group_id: Text::from(group),
        };
        loop {
            let error = match self.ask(TRANSACTION, &request, ADD_OFFSETS_VERSION).await {
                Ok(answer) if answer.error_code == 0 => {
                    self.has_offsets = true;
                    return Ok(());
                }
                Ok(answer) => self.refused("AddOffsetsToTxn", answer.error_code),
                Err(error) => error,
            };
            self.pause(error, deadline).await?;
        }
    }

    /// Ends the transaction that is open.
    pub(crate) async fn end(&mut self, commit: bool, deadline: Instant) -> Ended {
        let request = EndTxnRequest {
            transactional_id: Text::from(&self.id),
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            committed: commit,
        };
        let mut may_be_done = false;
        loop {
            let error = match self.ask(TRANSACTION, &request, END_VERSIONS[usize::from(self.second)]).await {
                Ok(answer) if answer.error_code == 0 => {
                    if answer.producer_id >= 0 {
                        self.take_producer(answer.producer_id, answer.producer_epoch);
                    }
                    self.forget_transaction();
                    return Ended::Done;
                }
                Ok(answer) => self.refused("EndTxn", answer.error_code),
                Err(error) => error,
            };
            may_be_done |= may_have_ended(&error);
            if let Err(error) = self.pause(error, deadline).await {
                return if may_be_done { Ended::Unknown(error) } else { Ended::Refused(error) };
            }
        }
    }

    /// Where a group has come to, when no transaction that would move it is open; -1 where it has committed nothing.
    pub(crate) async fn committed(
        &mut self,
        group: &str,
        topic: &str,
        partitions: &[i32],
        deadline: Instant,
    ) -> Result<BTreeMap<i32, i64>, ClientError> {
        let request = OffsetFetchRequest {
            group_id: Text::from(group),
            topics: Some(vec![offset_fetch_request::Topic {
                name: Text::from(topic),
                partition_indexes: partitions.to_vec(),
            }]),
            require_stable: true,
            ..OffsetFetchRequest::default()
        };
        loop {
            let error = match self.ask_of((GROUP, group), &request, OFFSET_FETCH_VERSION).await {
                Ok(answer) => {
                    let all = || answer.topics.iter().flat_map(|topic| &topic.partitions);
                    let code = Some(answer.error_code)
                        .into_iter()
                        .chain(all().map(|one| one.error_code))
                        .find(|code| *code != 0);
                    let Some(code) = code else {
                        return Ok(all().map(|one| (one.partition_index, one.committed_offset)).collect());
                    };
                    ClientError::refused(format!("group {group}: OffsetFetch"), code)
                }
                Err(error) => error,
            };
            self.forget_coordinator(GROUP, group, &error);
            self.pause(error, deadline).await?;
        }
    }

    async fn ask<R: Request>(
        &mut self,
        kind: i8,
        request: &R,
        newest: i16,
    ) -> Result<R::Response, ClientError> {
        let id = self.id.clone();
        self.ask_of((kind, &id), request, newest).await
    }

    async fn ask_of<R: Request>(
        &mut self,
        (kind, key): (i8, &str),
        request: &R,
        newest: i16,
    ) -> Result<R::Response, ClientError> {
        let name = (kind, key.to_owned());
        let address = match self.coordinators.get(&name) {
            Some(address) => address.clone(),
            None => self.find_coordinator(kind, key).await?,
        };
        let answer = self.cluster.ask_at(&address, request, newest).await;
        if answer.is_ok() {
            self.coordinators.insert(name, address);
        } else {
            self.coordinators.remove(&name);
        }
        answer
    }

    async fn find_coordinator(&mut self, kind: i8, key: &str) -> Result<String, ClientError> {
        let request = FindCoordinatorRequest {
            key: Text::from(key),
            key_type: kind,
            ..FindCoordinatorRequest::default()
        };
        let answer = self.cluster.ask_any(&request, FIND_COORDINATOR_VERSION).await?;
        if answer.error_code != 0 {
            return Err(ClientError::refused(format!("coordinator of {key}"), answer.error_code));
        }
        Ok(format!("{}:{}", answer.host, answer.port))
    }

    /// A refusal of the transaction coordinator.
    fn refused(&mut self, what: &str, code: i16) -> ClientError {
        let error = ClientError::refused(format!("{}: {what}", self.id), code);
        let id = self.id.clone();
        self.forget_coordinator(TRANSACTION, &id, &error);
        error
    }

    /// A coordinator that says that it is none is looked for anew.
    fn forget_coordinator(&mut self, kind: i8, key: &str, error: &ClientError) {
        let moved = matches!(
            error,
            ClientError::Refused { code: ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable, .. }
        );
        if moved {
            self.coordinators.remove(&(kind, key.to_owned()));
        }
    }

    /// A pause before the next attempt, or the error when there shall be none.
    async fn pause(&mut self, error: ClientError, deadline: Instant) -> Result<(), ClientError> {
        if !error.is_retriable() || Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        Ok(())
    }
}

/// Whether a transaction may be ended although this was the answer. A coordinator whose log did not take the end in time says
/// that it is not available, or not the coordinator: the end may be in the log all the same.
fn may_have_ended(error: &ClientError) -> bool {
    let ClientError::Refused { code, .. } = error else { return true };
    match code {
        ErrorCode::ConcurrentTransactions | ErrorCode::CoordinatorLoadInProgress => false,
        ErrorCode::UnknownServerError => true,
        code => code.is_retriable(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_open_unless_the_coordinator_certainly_did_nothing() {
        let refused = |code: ErrorCode| ClientError::refused("EndTxn", code.code());
        for code in [
            ErrorCode::CoordinatorNotAvailable,
            ErrorCode::NotCoordinator,
            ErrorCode::RequestTimedOut,
            ErrorCode::UnknownServerError,
        ] {
            assert!(may_have_ended(&refused(code)), "{code}");
        }
        for code in [
            ErrorCode::ConcurrentTransactions,
            ErrorCode::ProducerFenced,
            ErrorCode::InvalidTxnState,
            ErrorCode::InvalidProducerEpoch,
        ] {
            assert!(!may_have_ended(&refused(code)), "{code}");
        }
    }
}
