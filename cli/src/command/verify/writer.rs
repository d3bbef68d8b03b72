//! Writers. Without transactions a writer has an idempotent producer for each partition, so that a partition that stands
//! still holds up no other; with them one transactional producer over all partitions.

use std::collections::HashMap;

use ottla_verify::{Event, Outcome};

use super::payload::Name;
use super::run::{Dice, Pace, Run, deadline};
use crate::client::ClientError;
use crate::client::batch::{self, Fate, PRODUCE_VERSION, Target};
use crate::client::cluster::RETRY_PAUSE;
use crate::client::transactional_producer::{Ended, Transactional};

/// Most partitions of one transaction.
const TRANSACTION_PARTITIONS_MAX: u32 = 4;
/// One transaction in so many is aborted at will.
const ABORT_ONE_IN: u32 = 5;
/// One transaction in so many is left open by a producer that begins anew, as one that crashed would.
const CRASH_ONE_IN: u32 = 20;
/// What a transaction may take until the coordinator aborts it: long enough for a failover.
pub(super) const TRANSACTION_TIMEOUT_MS: i32 = 60_000;

/// Records of one sending, before and behind: what history and checker need.
pub(super) struct Sending {
    op: u64,
    count: u32,
}

impl Sending {
    /// Takes down that records are about to be sent.
    pub(super) fn begin(
        run: &Run,
        name: Name,
        count: u32,
        transaction: Option<u64>,
        src: Vec<(u32, u32, u64, u32)>,
    ) -> Self {
        let op = run.recorder.next_id();
        run.recorder.record(&Event::Send {
            t: run.recorder.now(),
            op,
            w: name.writer,
            p: name.partition,
            n: name.number,
            c: count,
            x: transaction,
            src,
        });
        Self { op, count }
    }

    /// Takes down what became of them. True: they are written.
    pub(super) fn end(self, run: &Run, fate: &Fate) -> bool {
        let (t, op) = (run.recorder.now(), self.op);
        match fate {
            Fate::Written(offset) => {
                run.recorder.count(self.count);
                run.recorder.record(&Event::Sent { t, op, o: *offset });
                return true;
            }
            Fate::Refused(error) => run.recorder.record(&Event::Refused { t, op, why: error.to_string() }),
            Fate::Unknown(error) => run.recorder.record(&Event::Unknown { t, op, why: error.to_string() }),
        }
        false
    }
}

/// One writer, one partition.
pub(super) async fn write_lane(run: &Run, writer: u32, partition: u32) -> Result<(), ClientError> {
    let (topic, index) = run.place(partition);
    let mut cluster = run.cluster();
    let mut dice = Dice::new(run.plan.seed, u64::from(writer) << 32 | u64::from(partition));
    let mut pace = Pace::new(run.plan.rate, run.plan.producers * run.plan.partitions);
    cluster.refresh_until(&[topic.to_owned()], deadline()).await?;
    let mut producer = batch::producer_id(&mut cluster, deadline()).await?;
    let mut sequence = 0;
    let mut number = 0;
    while run.is_writing() {
        let count = run.claim(dice.up_to(run.plan.batch_records));
        if count == 0 {
            break;
        }
        let name = Name { writer, partition, number };
        let sending = Sending::begin(run, name, count, None, Vec::new());
        number += u64::from(count);
        let fate = match run.maker.batch(name, count, producer, sequence, false) {
            Ok(batch) => {
                let target = Target {
                    topic,
                    partition: index,
                    acks: -1,
                    transactional_id: None,
                    version: PRODUCE_VERSION,
                };
                batch::send(&mut cluster, target, &batch, run.delivery()).await
            }
            Err(error) => Fate::Refused(too_large(topic, &error)),
        };
        if sending.end(run, &fate) {
            sequence = sequence.wrapping_add_unsigned(count) & i32::MAX;
        } else {
            // The sequence of what may or may not be written cannot be gone on with.
            tokio::time::sleep(RETRY_PAUSE).await;
            producer = batch::producer_id(&mut cluster, deadline()).await?;
            sequence = 0;
        }
        pace.wait(count, run).await;
    }
    Ok(())
}

fn too_large(topic: &str, error: &ottla_wire::records::BuildError) -> ClientError {
    ClientError::Refused {
        what: topic.to_owned(),
        code: ottla_wire::error_code::ErrorCode::MessageTooLarge,
        message: Some(error.to_string()),
    }
}

/// One writer of transactions.
pub(super) async fn write_transactions(run: &Run, writer: u32) -> Result<(), ClientError> {
    let topic = run.place(0).0;
    let id = format!("ottla-verify-{:016x}-w{writer}", run.plan.seed);
    let mut dice = Dice::new(run.plan.seed, u64::from(writer));
    let mut pace = Pace::new(run.plan.rate, run.plan.producers);
    let mut producer = Transactional::new(run.cluster(), id, TRANSACTION_TIMEOUT_MS);
    producer.cluster.refresh_until(&[topic.to_owned()], deadline()).await?;
    producer.init(deadline()).await?;
    let mut numbers: HashMap<u32, u64> = HashMap::new();
    while run.is_writing() {
        let x = run.recorder.next_id();
        let first = dice.up_to(run.plan.partitions) - 1;
        let width = dice.up_to(TRANSACTION_PARTITIONS_MAX.min(run.plan.partitions));
        let (mut written, mut is_whole) = (0, true);
        for step in 0..width {
            let partition = (first + step) % run.plan.partitions;
            let count = run.claim(dice.up_to(run.plan.batch_records));
            if count == 0 {
                break;
            }
            let number = numbers.entry(partition).or_default();
            let name = Name { writer, partition, number: *number };
            *number += u64::from(count);
            written += count;
            is_whole = send(run, &mut producer, name, count, x, Vec::new()).await;
            if !is_whole {
                break;
            }
        }
        if written == 0 {
            break;
        }
        let choice = if dice.once_in(CRASH_ONE_IN) {
            Choice::Crash
        } else if !is_whole || dice.once_in(ABORT_ONE_IN) {
            Choice::Abort
        } else {
            Choice::Commit
        };
        end(run, &mut producer, x, choice, is_whole).await?;
        pace.wait(written, run).await;
    }
    Ok(())
}

/// Sends records in a transaction. True: they are written.
pub(super) async fn send(
    run: &Run,
    producer: &mut Transactional,
    name: Name,
    count: u32,
    transaction: u64,
    src: Vec<(u32, u32, u64, u32)>,
) -> bool {
    let (topic, index) = run.place(name.partition);
    let sending = Sending::begin(run, name, count, Some(transaction), src);
    let sequence = producer.sequence(topic, index);
    let fate = match run.maker.batch(name, count, producer.producer(), sequence, true) {
        Ok(batch) => {
            let records = i32::try_from(count).unwrap_or(i32::MAX);
            producer.send((topic, index), &batch, records, run.delivery()).await
        }
        Err(error) => Fate::Refused(too_large(topic, &error)),
    };
    sending.end(run, &fate)
}

/// How a transaction shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Commit,
    Abort,
    /// Nothing is said to the cluster; the producer begins anew under its id.
    Crash,
}

/// Ends a transaction and takes down how; afterwards the producer can begin the next one. True: it is committed.
pub(super) async fn end(
    run: &Run,
    producer: &mut Transactional,
    x: u64,
    choice: Choice,
    is_sound: bool,
) -> Result<bool, ClientError> {
    let mut is_sound = is_sound;
    let outcome = if choice == Choice::Crash {
        is_sound = false;
        producer.cluster.disconnect();
        Outcome::Aborted
    } else {
        let commit = choice == Choice::Commit;
        run.recorder.record(&Event::End { t: run.recorder.now(), x, commit });
        let ended = producer.end(commit, run.delivery()).await;
        if let Ended::Refused(error) | Ended::Unknown(error) = &ended {
            is_sound = false;
            run.recorder.note(format!("transaction {x}: {error}"));
        }
        match ended {
            Ended::Done if commit => Outcome::Committed,
            Ended::Unknown(_) if commit => Outcome::Unknown,
            _ => Outcome::Aborted,
        }
    };
    run.recorder.record(&Event::Ended { t: run.recorder.now(), x, outcome });
    if !is_sound {
        producer.init(deadline()).await?;
    }
    Ok(outcome == Outcome::Committed)
}
