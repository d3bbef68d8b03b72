//! What is compared at every step, when the mended cluster is at rest, and what is said in the end.

use ottla_verify::{Checker, Header, Invariant, Report, State, Topic, VERSION, Verdict};

use super::message::Message;
use super::{Cluster, Outcome, at};
use crate::metadata;

impl Cluster {
    /// I44: who is fenced acknowledges nothing.
    pub(super) fn check_lease(&mut self, id: i32, message: &Message) {
        if let Message::Produced { partition, result: Ok(offset), .. } = message
            && metadata::is_fenced(self.quorum.latest(), id)
        {
            self.problem.get_or_insert(format!(
                "I44: broker {id} is fenced and acknowledges offset {offset} of partition {partition}"
            ));
        }
    }

    /// I41, I42, I50: below every high watermark lies the same.
    pub(super) fn compare(&mut self, id: i32, (index, high_watermark, leads): (i32, i64, bool)) {
        let broker = &self.brokers[at(id)];
        let Some(partition) = broker.partitions.get(&index) else { return };
        let replica = &partition.replica;
        let (incarnation, from) = self.compared.get(&(id, index)).copied().unwrap_or((0, 0));
        let from = if incarnation == broker.incarnation { from.min(high_watermark) } else { 0 };
        let is_deposed = leads && metadata::is_fenced(self.quorum.latest(), id);
        let committed = &mut self.committed[usize::try_from(index).unwrap_or(0)];
        for (offset, entry) in (from..).zip(replica.log.slice(from, high_watermark)) {
            let found = entry.payload.identity();
            match committed.get(usize::try_from(offset).unwrap_or(usize::MAX)) {
                Some(known) if *known == found => {}
                Some(known) => {
                    self.problem.get_or_insert(format!(
                        "I42: offset {offset} of partition {index} was committed as {known:?}; broker {id} has {found:?}"
                    ));
                }
                None if is_deposed => {
                    self.problem.get_or_insert(format!(
                        "I44: broker {id} is fenced and commits offset {offset} of partition {index}"
                    ));
                }
                None if leads => {
                    committed.push(found);
                    if let Err(problem) = self.oracle.committed(index, &entry.payload) {
                        self.problem.get_or_insert(problem);
                    }
                }
                None => {
                    self.problem.get_or_insert(format!(
                        "I41: follower {id} has offset {offset} of partition {index} below its watermark; no leader ever had"
                    ));
                }
            }
        }
        self.compared.insert((id, index), (broker.incarnation, high_watermark));
    }

    /// What is not yet as it should be at rest.
    pub(super) fn unrest(&self) -> Option<String> {
        if !self.clients.is_quiet() {
            return Some(self.clients.describe_waiting());
        }
        if let Some(transactors) = self.transactors.as_ref().filter(|transactors| !transactors.is_quiet()) {
            return Some(transactors.describe_waiting());
        }
        if let Some(hanging) = self.oracle.hanging() {
            return Some(format!("I65: {hanging}"));
        }
        let image = self.quorum.latest();
        let mut ends = Vec::new();
        for index in 0..self.plan.all_partitions() {
            let partition = metadata::partition(image, index)?;
            let Some(leader) = partition.leader else {
                return Some(format!("partition {index} has no leader"));
            };
            if partition.isr.len() < partition.replicas.len() {
                return Some(format!("partition {index}: not all in sync: {partition:?}"));
            }
            let leader = self.brokers[at(leader.0)].partitions.get(&index).map(|found| &found.replica);
            let Some(leader) = leader else {
                return Some(format!("partition {index}: its leader has no replica"));
            };
            let end = leader.log.end();
            for id in &partition.replicas {
                let replica = self.brokers[at(id.0)].partitions.get(&index).map(|found| &found.replica);
                let is_same = replica.is_some_and(|replica| {
                    replica.machine.high_watermark() == end
                        && replica.log.slice(0, replica.log.end()) == leader.log.slice(0, end)
                });
                if !is_same {
                    return Some(format!("partition {index}: broker {id} is not where its leader is"));
                }
            }
            ends.push(end);
        }
        (!self.clients.have_read_to(&ends)).then(|| "consumers have not read to the end".to_owned())
    }

    fn ends(&self) -> Vec<i64> {
        let image = self.quorum.latest();
        let end = |index: i32| {
            let leader = metadata::partition(image, index)?.leader?;
            Some(self.brokers[at(leader.0)].partitions.get(&index)?.replica.log.end())
        };
        (0..self.plan.partitions).map(|index| end(index).unwrap_or(0)).collect()
    }

    /// Among so many faults that not one transaction was committed: nothing is proven, which is no fault.
    fn has_hardly_run(&self) -> bool {
        self.plan.transactions.is_some() && self.oracle.counts().0 == 0
    }

    pub(super) fn judge(mut self) -> Outcome {
        let header = Header {
            version: VERSION,
            topics: vec![Topic {
                name: metadata::TOPIC.to_owned(),
                partitions: self.plan.partitions.unsigned_abs(),
            }],
            idempotent: self.plan.idempotent,
            transactions: self.plan.transactions.is_some(),
            seed: self.plan.seed,
            started_ms: 0,
        };
        let mut history = vec![ottla_verify::Event::History(header)];
        history.append(&mut self.clients.history);
        if self.problem.is_none() {
            history.push(ottla_verify::Event::Final { t: self.now_us, ends: self.ends() });
        }
        let report = check(&history);
        let problem = self.problem.clone().or_else(|| match &report {
            Err(error) => Some(format!("the history cannot be checked: {error}")),
            Ok(report) => verdict(report, self.plan.idempotent, self.has_hardly_run()),
        });
        let leader_changes = (0..self.plan.partitions)
            .filter_map(|index| metadata::partition(self.quorum.latest(), index))
            .map(|partition| i64::from(partition.leader_epoch.0))
            .sum();
        Outcome {
            seed: self.plan.seed,
            problem,
            report: report.ok(),
            events: self.events,
            transactions: self.oracle.counts(),
            replay: self.plan.replay(),
            ambushes: self.ambush.as_ref().map_or(0, |ambush| ambush.sprung),
            acknowledged: self.clients.acknowledged
                + self.transactors.as_ref().map_or(0, |transactors| transactors.acknowledged),
            troubles: self.troubles,
            elections: self.quorum.elections,
            truncations: self.brokers.iter().map(|broker| broker.truncations).sum(),
            lost: self.network.lost,
            leader_changes,
            simulated_ms: self.now_us / 1_000,
            history,
        }
    }
}

fn check(history: &[ottla_verify::Event]) -> Result<Report, ottla_verify::HistoryError> {
    let mut checker = Checker::new(&history[0])?;
    for event in &history[1..] {
        checker.take(event)?;
    }
    Ok(checker.finish())
}

/// Every invariant must be proven, but the one that plain producers are not promised.
fn verdict(report: &Report, idempotent: bool, has_hardly_run: bool) -> Option<String> {
    let is_bad = |verdict: &&Verdict| match verdict.state {
        State::Held => false,
        State::Refuted => idempotent || verdict.invariant != Invariant::NoDuplicates,
        State::Unproven => !has_hardly_run && (idempotent || verdict.invariant != Invariant::NoDuplicates),
    };
    let tell = |verdict: &Verdict| {
        format!("{:?} {:?}: {}", verdict.invariant, verdict.state, verdict.examples.join("; "))
    };
    report.verdicts.iter().find(is_bad).map(tell)
}
