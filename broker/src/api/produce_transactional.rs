//! What Produce has to ask before records of a transaction may be appended (KIP-890): for each partition where the
//! transaction is not open yet, whether its coordinator has the partition in it. From version 12 on the partition is added
//! by the same question. Requests without a transactional id pay nothing for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_coordinator::group::TopicPartition;
use ottla_coordinator::transaction::verification::{VerificationGuard, error_for_produce};
use ottla_wire::encode::Records;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::ProduceRequest;
use ottla_wire::records::BatchHeader;
use ottla_wire::text::Text;

use super::authorization::{Access, Operation};
use crate::context::BrokerContext;
use crate::replica::{Partition, Standing};
use crate::transactions::verification::Question;

/// From this version on topics are named by id.
const BY_ID_FROM: i16 = 13;
/// From this version on the leader adds its partition to the transaction.
const ADDS_FROM: i16 = 12;
/// How often the coordinator is asked again because a marker came between its answer and the append.
const ATTEMPTS_MAX: usize = 5;

/// A partition of the request whose transaction is not open here.
struct Asking {
    /// Topic and partition by their places in the request.
    place: (usize, usize),
    replica: Arc<Partition>,
    partition: TopicPartition,
    producer_id: i64,
    producer_epoch: i16,
    sequence: Option<i32>,
    guard: VerificationGuard,
}

/// The questions of a request.
#[derive(Default)]
pub(super) struct Questions {
    version: i16,
    transactional_id: Text,
    asking: Vec<Asking>,
}

/// What was answered, by places in the request.
#[derive(Default)]
pub(super) struct Verified(BTreeMap<(usize, usize), Result<VerificationGuard, ErrorCode>>);

impl Verified {
    /// The guard to append with: none where nothing had to be asked.
    pub(super) fn of(&self, topic: usize, partition: usize) -> Result<Option<VerificationGuard>, ErrorCode> {
        if self.0.is_empty() {
            return Ok(None);
        }
        self.0.get(&(topic, partition)).copied().transpose()
    }
}

impl Questions {
    pub(super) fn of(
        context: &BrokerContext,
        access: &Access,
        version: i16,
        request: &ProduceRequest,
    ) -> Self {
        let Some(transactional_id) = &request.transactional_id else { return Self::default() };
        let mut questions = Self { version, transactional_id: transactional_id.clone(), asking: Vec::new() };
        for (topic_place, topic) in request.topic_data.iter().enumerate() {
            let known = if version >= BY_ID_FROM {
                context.replicas.topic_by_id(topic.topic_id)
            } else {
                context.replicas.topic_by_name(&topic.name)
            };
            let Some(known) = known else { continue };
            // Its append is refused.
            if access.topic(Operation::Write, known.name()).is_err() {
                continue;
            }
            for (place, data) in topic.partition_data.iter().enumerate() {
                if let (Some(Records::Bytes(records)), Ok(replica)) =
                    (&data.records, known.partition(data.index))
                {
                    questions.add((topic_place, place), replica, records);
                }
            }
        }
        questions
    }

    /// What cannot be asked is refused by the append itself, which finds the reason again.
    fn add(&mut self, place: (usize, usize), replica: Arc<Partition>, records: &[u8]) {
        let Ok(header) = BatchHeader::parse(records) else { return };
        if !header.is_transactional() || !header.has_producer_id() {
            return;
        }
        let sequence = (self.version < ADDS_FROM).then_some(header.base_sequence);
        let (producer_id, producer_epoch) = (header.producer_id, header.producer_epoch);
        let standing =
            replica.transaction_standing(producer_id, producer_epoch, sequence, BrokerContext::now_ms());
        if let Ok(Standing::Ask(guard)) = standing {
            let partition =
                TopicPartition { topic: Text::from(&**replica.topic()), partition: replica.index() };
            self.asking.push(Asking {
                place,
                replica,
                partition,
                producer_id,
                producer_epoch,
                sequence,
                guard,
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.asking.is_empty()
    }

    /// Asks until every partition has an answer that counts, or none.
    pub(super) async fn ask(self, context: &BrokerContext) -> Verified {
        let Self { version, transactional_id, mut asking } = self;
        let mut verified = BTreeMap::new();
        for attempt in 1..=ATTEMPTS_MAX {
            let mut by_producer: BTreeMap<(i64, i16), Vec<Asking>> = BTreeMap::new();
            for one in std::mem::take(&mut asking) {
                by_producer.entry((one.producer_id, one.producer_epoch)).or_default().push(one);
            }
            for ((producer_id, producer_epoch), of_producer) in by_producer {
                let question = Question {
                    transactional_id: transactional_id.clone(),
                    producer_id,
                    producer_epoch,
                    partitions: of_producer.iter().map(|one| one.partition.clone()).collect(),
                    add: version >= ADDS_FROM,
                };
                let codes = context.transactions.ask(&question).await;
                let codes = codes.unwrap_or_else(|error| vec![error; of_producer.len()]);
                for (mut one, code) in of_producer.into_iter().zip(codes) {
                    if code != ErrorCode::None {
                        verified.insert(one.place, Err(error_for_produce(code, version)));
                    } else if attempt == ATTEMPTS_MAX || one.still_counts() {
                        verified.insert(one.place, Ok(one.guard));
                    } else if let Some(guard) = one.stand_again() {
                        one.guard = guard;
                        asking.push(one);
                    }
                }
            }
            if asking.is_empty() {
                break;
            }
        }
        Verified(verified)
    }
}

impl Asking {
    fn still_counts(&self) -> bool {
        self.replica.is_verified(self.producer_id, self.guard)
    }

    /// The answer came too late: another question, unless the transaction is open by now or can never be.
    fn stand_again(&self) -> Option<VerificationGuard> {
        let now_ms = BrokerContext::now_ms();
        match self.replica.transaction_standing(self.producer_id, self.producer_epoch, self.sequence, now_ms)
        {
            Ok(Standing::Ask(guard)) => Some(guard),
            Ok(Standing::Open) | Err(_) => None,
        }
    }
}
