//! Questions to transaction coordinators (KIP-890): the leader of a partition has a transaction verified, or for a producer
//! of transactions version 2 its own partition added, before the first record of the transaction is appended.

use std::collections::HashMap;
use std::time::Duration;

use ottla_coordinator::group::TopicPartition;
use ottla_coordinator::transaction::{AddPartitions, Command, Reply, TransactionVersion};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::AddPartitionsToTxnRequest;
use ottla_wire::messages::add_partitions_to_txn_request::{Topic, Transaction};
use ottla_wire::text::Text;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::TransactionService;
use crate::internal_topics::TRANSACTION_STATE;
use crate::replica::{Clock, Partition, Standing};
use crate::replication::peer::Peer;

/// The property that turns the questions about transactions version 1 off, while brokers run.
const VERIFICATION: &str = "transaction.partition.verification.enable";
/// The request by which brokers add for producers of transactions version 2.
const ADD_PARTITIONS_VERSION: i16 = 5;
/// An addition that comes before the last transaction is over waits for that as long as this, in milliseconds. Then the
/// producer comes again.
pub(crate) const ADDITION_WAIT_MS_MAX: u64 = 1_000;
/// How long a coordinator may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to one coordinator that are kept while nobody needs them.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// What a coordinator is asked.
pub(crate) struct Question {
    pub(crate) transactional_id: Text,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) partitions: Vec<TopicPartition>,
    /// Add them (transactions version 2), or else only look whether they are in the transaction.
    pub(crate) add: bool,
}

/// Connections to brokers that coordinate, while nobody needs them.
#[derive(Default)]
pub(super) struct Coordinators {
    idle: Mutex<HashMap<i32, Vec<Peer>>>,
}

impl TransactionService {
    /// Asks the coordinator, here or elsewhere: one code for each partition, or why there is no answer.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Vec<ErrorCode>, ErrorCode> {
        // Without verification a producer of transactions version 1 is believed, as before KIP-890. The partition of one of
        // version 2 is added by this very question: it has to be asked.
        if !question.add && !self.foundation.replicas.is_enabled(VERIFICATION) {
            return Ok(vec![ErrorCode::None; question.partitions.len()]);
        }
        match self.shard_of(&question.transactional_id) {
            Ok(_) => self.ask_here(question).await,
            Err(ErrorCode::NotCoordinator) => self.ask_elsewhere(question).await,
            Err(error) => Err(error),
        }
    }

    async fn ask_here(&self, question: &Question) -> Result<Vec<ErrorCode>, ErrorCode> {
        let Question { transactional_id, producer_id, producer_epoch, partitions, add } = question;
        if !add {
            return self.query(transactional_id, |machine| {
                machine.verify(transactional_id, *producer_id, *producer_epoch, partitions)
            });
        }
        let command = Command::AddPartitions(AddPartitions {
            transactional_id: transactional_id.clone(),
            producer_id: *producer_id,
            producer_epoch: *producer_epoch,
            client_version: TransactionVersion::V2,
            partitions: partitions.clone(),
            wait_ms_max: ADDITION_WAIT_MS_MAX,
        });
        match self.submit(command).await {
            Reply::AddPartitions(error) => Ok(vec![error; partitions.len()]),
            _ => Err(ErrorCode::UnknownServerError),
        }
    }

    async fn ask_elsewhere(&self, question: &Question) -> Result<Vec<ErrorCode>, ErrorCode> {
        let replicas = &self.foundation.replicas;
        let index =
            self.partition_of(&question.transactional_id).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let image = replicas.image();
        let leader = image
            .topic_by_name(TRANSACTION_STATE)
            .and_then(|topic| topic.partitions.get(usize::try_from(index).ok()?)?.leader)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?
            .0;
        if leader == replicas.shared().options.broker_id {
            return Err(ErrorCode::CoordinatorLoadInProgress);
        }
        let idle = self.coordinators.idle.lock().get_mut(&leader).and_then(Vec::pop);
        let mut peer = match idle {
            Some(peer) => peer,
            None => self.connect(leader).await?,
        };
        let request = request(question);
        let mut answer = peer.call(&request, ADD_PARTITIONS_VERSION).await;
        if answer.is_err() {
            // An idle connection may have been closed by the other end since; asking twice changes nothing.
            peer = self.connect(leader).await?;
            answer = peer.call(&request, ADD_PARTITIONS_VERSION).await;
        }
        let answer = answer.map_err(|error| {
            tracing::warn!(%error, "a transaction coordinator cannot be asked");
            ErrorCode::NetworkException
        })?;
        let mut idle = self.coordinators.idle.lock();
        let kept = idle.entry(leader).or_default();
        if kept.len() < IDLE_CONNECTIONS_MAX {
            kept.push(peer);
        }
        drop(idle);
        if answer.error_code != 0 {
            return Err(ErrorCode::from_code(answer.error_code));
        }
        let mut codes: HashMap<(&Text, i32), i16> = HashMap::new();
        for topic in answer.results_by_transaction.iter().flat_map(|result| &result.topic_results) {
            let of_topic = topic.results_by_partition.iter();
            codes.extend(of_topic.map(|p| ((&topic.name, p.partition_index), p.partition_error_code)));
        }
        let code = |partition: &TopicPartition| {
            let code = codes.get(&(&partition.topic, partition.partition));
            code.map_or(ErrorCode::UnknownServerError, |code| ErrorCode::from_code(*code))
        };
        Ok(question.partitions.iter().map(code).collect())
    }

    async fn connect(&self, broker: i32) -> Result<Peer, ErrorCode> {
        let replicas = &self.foundation.replicas;
        let (host, port) = replicas.broker_endpoint(broker).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let security = &replicas.shared().options.peer_security;
        Peer::connect(&host, port, "ottla-transactions", ANSWER_TIMEOUT, security).await.map_err(|error| {
            tracing::warn!(%error, "a transaction coordinator cannot be reached");
            ErrorCode::NetworkException
        })
    }

    /// Lets the offsets that a transaction commits into a partition of the offsets topic.
    pub(crate) async fn admit_offsets(
        &self,
        partition: &Partition,
        question: &Question,
    ) -> Result<(), ErrorCode> {
        let (producer_id, producer_epoch) = (question.producer_id, question.producer_epoch);
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let standing =
                partition.transaction_standing(producer_id, producer_epoch, None, Clock::wall_ms());
            let guard = match standing.map_err(|refusal| refusal.code)? {
                Standing::Open => return Ok(()),
                Standing::Ask(guard) => guard,
            };
            let codes = self.ask(question).await?;
            if let Some(error) = codes.into_iter().find(|code| *code != ErrorCode::None) {
                return Err(error);
            }
            if partition.confirm(producer_id, producer_epoch, guard) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ErrorCode::ConcurrentTransactions);
            }
        }
    }
}

fn request(question: &Question) -> AddPartitionsToTxnRequest {
    let mut topics: Vec<Topic> = Vec::new();
    for partition in &question.partitions {
        match topics.iter_mut().find(|topic| topic.name == partition.topic) {
            Some(topic) => topic.partitions.push(partition.partition),
            None => {
                topics.push(Topic { name: partition.topic.clone(), partitions: vec![partition.partition] });
            }
        }
    }
    AddPartitionsToTxnRequest {
        transactions: vec![Transaction {
            transactional_id: question.transactional_id.clone(),
            producer_id: question.producer_id,
            producer_epoch: question.producer_epoch,
            verify_only: !question.add,
            topics,
        }],
        ..Default::default()
    }
}
