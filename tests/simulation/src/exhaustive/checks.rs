//! What must hold in every state. Numbers are those of the reliability rules: I20, I38 to I46.

use ottla_replica::AckState;

use super::world::{BROKERS, World, at};
use crate::metadata;

/// So many processes must have ended without a word before loss is what is promised.
const UNCLEAN_STOPS_MIN: u8 = 2;

impl World {
    /// The first rule that is broken.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.check_image()?;
        self.check_watermarks()?;
        self.check_promise();
        if self.promised_loss {
            return Ok(());
        }
        self.check_acknowledgements()?;
        self.check_leaders()?;
        self.check_told()
    }

    /// I20: the leader is in the ISR, the ISR is among the replicas, nobody is in sync and eligible at once.
    fn check_image(&self) -> Result<(), String> {
        let Some(partition) = metadata::partition(self.latest(), 0) else {
            return Err("the partition is gone".to_owned());
        };
        let leads_in_sync = partition.leader.is_none_or(|leader| partition.isr.contains(&leader));
        let is_eligible = |id| partition.eligible_leader_replicas.contains(id);
        let is_sound = leads_in_sync
            && !partition.isr.is_empty()
            && partition.isr.iter().all(|id| partition.replicas.contains(id) && !is_eligible(id));
        if is_sound { Ok(()) } else { Err(format!("I20: {partition:?}")) }
    }

    /// I44: whether this broker must neither move a watermark nor acknowledge.
    fn is_deposed(&self, id: i32) -> bool {
        self.leases_count && metadata::is_fenced(self.latest(), id)
    }

    /// I41, I42, I50: what lies below any high watermark is the same everywhere, for ever. I44: only who has a lease commits.
    fn check_watermarks(&mut self) -> Result<(), String> {
        // Leaders first: a follower may have been told in this very event.
        let mut order = BROKERS;
        order.sort_by_key(|id| !self.brokers[at(*id)].replica.machine.is_leader());
        for id in order {
            let is_deposed = self.is_deposed(id);
            let broker = &self.brokers[at(id)];
            if !broker.is_running {
                continue;
            }
            let high_watermark = broker.replica.machine.high_watermark();
            if high_watermark > broker.replica.log.end() {
                return Err(format!("broker {id}: the watermark {high_watermark} is beyond the log"));
            }
            let entries = broker.replica.log.slice(0, high_watermark);
            for (offset, entry) in entries.iter().enumerate() {
                match self.committed.get(offset) {
                    Some(value) if *value == entry.payload => {}
                    Some(value) => {
                        let found = entry.payload;
                        return Err(format!(
                            "I42: offset {offset} was committed as {value}; broker {id} has {found} below its watermark"
                        ));
                    }
                    None if is_deposed => {
                        return Err(format!("I44: broker {id} is fenced and commits offset {offset}"));
                    }
                    None if broker.replica.machine.is_leader() => self.committed.push(entry.payload),
                    None => {
                        return Err(format!(
                            "I41: follower {id} has a watermark of {high_watermark}; no leader ever had"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Loss is promised when two processes ended without a word, one of them lost data, and none of those who may be
    /// elected has all that is committed. With `flush.messages=1` it never is.
    fn check_promise(&mut self) {
        let (stops, losses) = self.unclean;
        if self.synced_only || losses == 0 || stops < UNCLEAN_STOPS_MIN {
            return;
        }
        let Some(partition) = metadata::partition(self.latest(), 0) else { return };
        let mut electable = partition.isr.iter().chain(&partition.eligible_leader_replicas);
        self.promised_loss = !electable.any(|id| self.brokers[at(id.0)].replica.holds(&self.committed));
    }

    /// I38: what is acknowledged is committed, and nothing else was acknowledged there. I44: not by who is fenced.
    fn check_acknowledgements(&mut self) -> Result<(), String> {
        for id in BROKERS {
            let now = self.now(id);
            let fault = self.fault;
            let broker = &mut self.brokers[at(id)];
            let waiting = std::mem::take(&mut broker.waiting);
            let mut done = Vec::new();
            for (offset, epoch, value) in waiting {
                match broker.replica.ack_state(now, epoch, offset, fault) {
                    AckState::Done => done.push((offset, value)),
                    AckState::Pending => broker.waiting.push((offset, epoch, value)),
                    AckState::NotEnoughReplicasAfterAppend | AckState::NoLongerLeader => {}
                }
            }
            if !done.is_empty() && self.is_deposed(id) {
                return Err(format!("I44: broker {id} is fenced and acknowledges {done:?}"));
            }
            for (offset, value) in done {
                if let Some(other) = self.acknowledged.insert(offset, value)
                    && other != value
                {
                    return Err(format!("I38: offset {offset} is acknowledged as {other} and as {value}"));
                }
                let at = usize::try_from(offset).unwrap_or(usize::MAX);
                if self.committed.get(at) != Some(&value) {
                    return Err(format!("I38: offset {offset} is acknowledged as {value}, not committed"));
                }
            }
        }
        Ok(())
    }

    /// I39, I21: who leads by the latest image, and knows it, has all that is committed. I1: one leader an epoch.
    fn check_leaders(&self) -> Result<(), String> {
        let Some(latest) = metadata::partition(self.latest(), 0) else { return Ok(()) };
        let mut epochs = Vec::new();
        for id in BROKERS {
            let broker = &self.brokers[at(id)];
            let machine = &broker.replica.machine;
            if !broker.is_running || !machine.is_leader() {
                continue;
            }
            if epochs.contains(&machine.leader_epoch()) {
                return Err(format!("I1: two leaders in epoch {}", machine.leader_epoch()));
            }
            epochs.push(machine.leader_epoch());
            let is_current = latest.leader.is_some_and(|leader| leader.0 == id)
                && latest.leader_epoch.0 == machine.leader_epoch();
            if is_current && !broker.replica.holds(&self.committed) {
                return Err(format!(
                    "I39: broker {id} leads in epoch {} and lacks some of {:?}: {:?}",
                    machine.leader_epoch(),
                    self.committed,
                    broker.replica.log
                ));
            }
        }
        Ok(())
    }

    /// I40: who asks for the end is never told one before an end that a leader told in an earlier epoch.
    fn check_told(&mut self) -> Result<(), String> {
        for id in BROKERS {
            let broker = &self.brokers[at(id)];
            if !broker.is_serving {
                continue;
            }
            let epoch = broker.replica.machine.leader_epoch();
            let Some(end) = broker.replica.latest_offset() else { continue };
            let earlier = self.told.range(..=epoch).map(|(_, end)| *end).max().unwrap_or(0);
            if end < earlier {
                return Err(format!("I40: broker {id} tells end {end} in epoch {epoch}, after {earlier}"));
            }
            let told = self.told.entry(epoch).or_insert(0);
            *told = (*told).max(end);
        }
        Ok(())
    }

    /// After healing: all in sync, all the same, all committed, nothing acknowledged is missing.
    pub(super) fn check_healed(&self) -> Result<(), String> {
        let Some(partition) = metadata::partition(self.latest(), 0) else { return Ok(()) };
        let Some(leader) = partition.leader else { return Err(format!("no leader: {partition:?}")) };
        if partition.isr.len() < BROKERS.len() {
            return Err(format!("not all are in sync: {partition:?}"));
        }
        let leader = &self.brokers[at(leader.0)].replica;
        for id in BROKERS {
            let replica = &self.brokers[at(id)].replica;
            let (log, end) = (&replica.log, leader.log.end());
            if log.slice(0, log.end()) != leader.log.slice(0, end) {
                return Err(format!("I42: broker {id} has {log:?}, its leader {:?}", leader.log));
            }
            if replica.machine.high_watermark() != end {
                let high_watermark = replica.machine.high_watermark();
                return Err(format!("broker {id} has a watermark of {high_watermark} of {end}"));
            }
        }
        for (offset, value) in &self.acknowledged {
            if leader.log.get(*offset).is_none_or(|entry| entry.payload != *value) {
                return Err(format!("I39: {value}, acknowledged at {offset}, is lost"));
            }
        }
        Ok(())
    }
}
