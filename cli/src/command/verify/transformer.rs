//! Transformers: each consumes its share of the first topic's partitions as committed, and for each record writes one to the
//! second topic, in one transaction with its offsets. Now and then one aborts, or begins anew as if it had crashed.

use std::collections::BTreeMap;

use super::payload::Name;
use super::reader::{Lane, Runs, end_of};
use super::run::{Dice, Run, deadline};
use super::writer::{Choice, TRANSACTION_TIMEOUT_MS, end, send};
use crate::client::ClientError;
use crate::client::cluster::Cluster;
use crate::client::transactional_producer::Transactional;

/// Of one partition in one transaction: transactions stay small, so that there are many.
const FETCH_BYTES_MAX: i32 = 32 * 1024;
/// How long a leader may hold a fetch: other partitions wait meanwhile.
const WAIT_MS_MAX: i32 = 50;
/// One transaction in so many is aborted at will, and one in so many is left open by a producer that begins anew.
const ABORT_ONE_IN: u32 = 10;
const CRASH_ONE_IN: u32 = 15;
/// Numbers of transformers as readers and as writers lie above those of the others.
pub(super) const FIRST_ID: u32 = 1_000_000;

/// One of `count` transformers.
#[derive(Debug)]
pub(super) struct Transformer<'a> {
    run: &'a Run,
    id: u32,
    group: String,
    lanes: BTreeMap<i32, Lane<'a>>,
    /// The next number in each partition of the second topic.
    numbers: BTreeMap<i32, u64>,
    dice: Dice,
}

impl<'a> Transformer<'a> {
    pub(super) fn new(run: &'a Run, index: u32, count: u32) -> Self {
        let id = FIRST_ID + index;
        let own = (0..run.plan.partitions).filter(|partition| partition % count == index);
        let lanes = own
            .filter_map(|partition| {
                let lane = Lane::new(run, id, partition, true, FETCH_BYTES_MAX);
                Some((i32::try_from(partition).ok()?, lane))
            })
            .collect();
        Self {
            run,
            id,
            group: format!("ottla-verify-{:016x}", run.plan.seed),
            lanes,
            numbers: BTreeMap::new(),
            dice: Dice::new(run.plan.seed, u64::from(id)),
        }
    }

    /// Goes on until all that the writers wrote is transformed. False: it gave up before.
    pub(super) async fn transform(mut self) -> Result<bool, ClientError> {
        let run = self.run;
        let id = format!("ottla-verify-{:016x}-t{}", run.plan.seed, self.id);
        let mut producer = Transactional::new(run.cluster(), id, TRANSACTION_TIMEOUT_MS);
        let mut consumer = run.cluster();
        producer.cluster.refresh_until(&run.plan.topics, deadline()).await?;
        consumer.refresh_until(&run.plan.topics, deadline()).await?;
        producer.init(deadline()).await?;
        while !self.is_done() {
            if run.gives_up() {
                return Ok(false);
            }
            let taken = self.take(&mut consumer).await;
            if !taken.is_empty() && !self.pass_on(&mut producer, taken).await? {
                self.go_back(&mut producer).await?;
            }
        }
        Ok(true)
    }

    fn is_done(&self) -> bool {
        let ends = self.run.input_ends.borrow();
        let Some(ends) = ends.as_ref() else { return false };
        let done = |(index, lane): (&i32, &Lane<'_>)| {
            u32::try_from(*index).ok().and_then(|index| end_of(ends, index)) <= Some(lane.position)
        };
        self.lanes.iter().all(done)
    }

    /// What comes from all own partitions.
    async fn take(&mut self, consumer: &mut Cluster) -> BTreeMap<i32, Runs> {
        let mut taken = BTreeMap::new();
        for (index, lane) in &mut self.lanes {
            match lane.poll(consumer, WAIT_MS_MAX).await {
                Ok(runs) if runs.is_empty() => {}
                Ok(runs) => {
                    taken.insert(*index, runs);
                }
                Err(_) => lane.recover(consumer).await,
            }
        }
        taken
    }

    /// One transaction. True: it is committed.
    async fn pass_on(
        &mut self,
        producer: &mut Transactional,
        taken: BTreeMap<i32, Runs>,
    ) -> Result<bool, ClientError> {
        let run = self.run;
        let x = run.recorder.next_id();
        let mut is_sound = true;
        let mut offsets = BTreeMap::new();
        for (index, runs) in taken {
            let Ok(partition) = u32::try_from(index) else { continue };
            let count = runs.iter().map(|(.., count)| *count).sum();
            let src = runs.into_iter().map(|(_, writer, number, count)| (partition, writer, number, count));
            let number = self.numbers.entry(index).or_default();
            let name = Name { writer: self.id, partition: partition + run.plan.partitions, number: *number };
            *number += u64::from(count);
            is_sound = send(run, producer, name, count, x, src.collect()).await;
            if !is_sound {
                break;
            }
            offsets.extend(self.lanes.get(&index).map(|lane| (index, lane.position)));
        }
        if is_sound {
            let topic = run.place(0).0;
            let moved = producer.commit_offsets(&self.group, topic, &offsets, run.delivery()).await;
            if let Err(error) = moved {
                is_sound = false;
                run.recorder.note(format!("transaction {x}: {error}"));
            }
        }
        let choice = if self.dice.once_in(CRASH_ONE_IN) {
            Choice::Crash
        } else if !is_sound || self.dice.once_in(ABORT_ONE_IN) {
            Choice::Abort
        } else {
            Choice::Commit
        };
        end(run, producer, x, choice, is_sound).await
    }

    /// To where the group has come to: what was taken since is taken again.
    async fn go_back(&mut self, producer: &mut Transactional) -> Result<(), ClientError> {
        let run = self.run;
        let indexes: Vec<i32> = self.lanes.keys().copied().collect();
        let committed = producer.committed(&self.group, run.place(0).0, &indexes, deadline()).await?;
        for (index, lane) in &mut self.lanes {
            let start = u32::try_from(*index).ok().and_then(|at| end_of(&run.starts, at)).unwrap_or(0);
            let to = committed.get(index).copied().filter(|offset| *offset >= 0).unwrap_or(start);
            lane.seek(to);
        }
        Ok(())
    }
}
