//! Who leads a partition, and what its ISR becomes, when brokers come and go.
//!
//! Order of election: the ISR, then eligible leader replicas (only when the ISR is empty), then, if the topic allows it and
//! counted, any replica. Within a set the order of the replicas decides, so that the preferred leader is first.
//!
//! A reassignment (KIP-455) is part of the same change: it is complete when every replica of the target is in the ISR, and
//! then the removed ones go, the ISR loses them, and if one of them led another is elected, all in one record.

use crate::features;
use crate::image::{BrokerId, LeaderEpoch, MetadataImage, PartitionEpoch, PartitionImage};

/// What an election may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// A leader from the ISR or the eligible replicas; the one that leads stays if it can.
    Clean,
    /// As `Clean`, but the preferred leader takes over if it is in the ISR.
    Preferred,
    /// As `Clean`, but rather a leader that lacks records than none.
    Unclean,
}

/// Whether a broker may lead: registered, not fenced, not on its way out.
pub fn may_lead(image: &MetadataImage, broker: BrokerId) -> bool {
    image.broker(broker).is_some_and(crate::image::BrokerRegistration::is_eligible)
}

/// A change of one partition under way: what it was, what it becomes.
#[derive(Debug, Clone)]
pub struct PartitionChange<'a> {
    image: &'a MetadataImage,
    old: &'a PartitionImage,
    new: PartitionImage,
    min_insync_replicas: usize,
    election: Election,
    /// Brokers that must be taken as gone although the image still has them.
    gone: &'a [BrokerId],
    /// A change of the ISR alone that must fence the old leader's view.
    bump_leader_epoch: bool,
}

impl<'a> PartitionChange<'a> {
    /// Nothing changed yet.
    pub fn new(image: &'a MetadataImage, old: &'a PartitionImage, min_insync_replicas: i32) -> Self {
        Self {
            image,
            old,
            new: old.clone(),
            min_insync_replicas: usize::try_from(min_insync_replicas).unwrap_or(1),
            election: Election::Clean,
            gone: &[],
            bump_leader_epoch: false,
        }
    }

    /// More than there are replicas can never be in sync: as many as there are count as enough, as in Kafka.
    fn enough(&self) -> usize {
        self.min_insync_replicas.min(self.new.replicas.len())
    }

    /// Other replicas, of which some are being added or removed; each keeps its directory.
    pub fn with_replicas(
        mut self,
        replicas: Vec<BrokerId>,
        adding: Vec<BrokerId>,
        removing: Vec<BrokerId>,
    ) -> Self {
        self.set_replicas(replicas);
        self.new.adding_replicas = adding;
        self.new.removing_replicas = removing;
        let isr: Vec<BrokerId> =
            self.new.isr.iter().copied().filter(|id| self.new.replicas.contains(id)).collect();
        self.set_isr(isr);
        self
    }

    /// The only member of the ISR is one that may lack records: the leader that it becomes must recover.
    pub fn with_unclean_isr(mut self, member: BrokerId) -> Self {
        self.new.isr = vec![member];
        self.new.eligible_leader_replicas.clear();
        self.new.recovering = true;
        self
    }

    fn set_replicas(&mut self, replicas: Vec<BrokerId>) {
        if !self.new.directories.is_empty() {
            self.new.directories = replicas.iter().map(|id| self.new.directory(*id)).collect();
        }
        self.new.eligible_leader_replicas.retain(|id| replicas.contains(id));
        self.new.last_known_leader.retain(|id| replicas.contains(id));
        self.new.replicas = replicas;
    }

    /// The removed replicas go as soon as every other replica is in sync: the partition never has fewer in sync than its
    /// target has replicas.
    fn complete_reassignment(&mut self) {
        if !self.new.is_reassigning() {
            return;
        }
        let stays = |id: &BrokerId| !self.new.removing_replicas.contains(id);
        let replicas: Vec<BrokerId> = self.new.replicas.iter().copied().filter(stays).collect();
        let isr: Vec<BrokerId> = self.new.isr.iter().copied().filter(stays).collect();
        if isr.is_empty() || !replicas.iter().all(|id| isr.contains(id)) {
            return;
        }
        self.new.adding_replicas.clear();
        self.new.removing_replicas.clear();
        self.set_replicas(replicas);
        self.set_isr(isr);
    }

    /// How to elect.
    pub fn election(mut self, election: Election) -> Self {
        self.election = election;
        self
    }

    /// Brokers that leave the ISR and may not lead. The last member of an ISR stays in it: it has every record, and may
    /// lead again when it is back.
    pub fn without(mut self, gone: &'a [BrokerId]) -> Self {
        self.gone = gone;
        let staying: Vec<BrokerId> = self.new.isr.iter().copied().filter(|id| !gone.contains(id)).collect();
        self.set_isr(if staying.is_empty() { self.last_of(&self.new.isr) } else { staying });
        self
    }

    /// The ISR that a leader asked for, already checked.
    pub fn with_isr(mut self, isr: Vec<BrokerId>, recovering: bool) -> Self {
        self.set_isr(isr);
        self.new.recovering = recovering;
        self
    }

    /// KIP-966: a broker that came back without a clean shutdown may lack the end of its log, so that it is not eligible
    /// any more; and where it is the only member of the ISR, an eligible replica, which has every committed record, takes
    /// its place there. Without one it stays: nobody has more.
    pub fn after_unclean_shutdown(mut self, id: BrokerId) -> Self {
        self.new.eligible_leader_replicas.retain(|other| *other != id);
        if self.new.isr == [id] && !self.new.eligible_leader_replicas.is_empty() {
            self.new.isr = vec![self.new.eligible_leader_replicas.remove(0)];
        }
        self
    }

    /// The eligible replicas under a `min.insync.replicas` that has changed: once the ISR is large enough for the high
    /// watermark to move, nobody outside it may count as complete.
    pub fn with_changed_minimum(mut self) -> Self {
        let isr = self.new.isr.clone();
        self.set_isr(isr);
        self
    }

    fn last_of(&self, isr: &[BrokerId]) -> Vec<BrokerId> {
        // The leader has the most records.
        let leader = self.new.leader.filter(|leader| isr.contains(leader));
        leader.or_else(|| isr.first().copied()).into_iter().collect()
    }

    /// KIP-966: who leaves an ISR that falls under min.insync.replicas stays eligible, because the high watermark does
    /// not move without it. As soon as the ISR is large enough nobody is.
    fn set_isr(&mut self, isr: Vec<BrokerId>) {
        if isr.len() >= self.enough() || !features::has_eligible_leader_replicas(self.image) {
            self.new.eligible_leader_replicas.clear();
            self.new.last_known_leader.clear();
        } else {
            let mut eligible: Vec<BrokerId> = self.new.eligible_leader_replicas.clone();
            eligible.extend(self.new.isr.iter().copied());
            eligible.retain(|id| !isr.contains(id) && self.new.replicas.contains(id));
            eligible.sort_unstable();
            eligible.dedup();
            self.new.eligible_leader_replicas = eligible;
        }
        self.new.isr = isr;
    }

    fn is_available(&self, id: BrokerId) -> bool {
        !self.gone.contains(&id) && may_lead(self.image, id) && self.image.is_replica_online(&self.new, id)
    }

    fn is_alive(&self, id: BrokerId) -> bool {
        !self.gone.contains(&id)
            && self.image.broker(id).is_some_and(|broker| !broker.fenced)
            && self.image.is_replica_online(&self.new, id)
    }

    fn lead(&mut self, leader: BrokerId) {
        self.new.leader = Some(leader);
        self.new.last_known_leader.clear();
    }

    fn elect(&mut self) {
        let preferred = self.new.replicas.first().copied();
        let in_sync = |id: &BrokerId| self.new.isr.contains(id) && self.is_available(*id);
        let stays = self.new.leader.filter(in_sync);
        let chosen = match self.election {
            Election::Preferred => preferred.filter(in_sync).or(stays),
            Election::Clean | Election::Unclean => stays,
        };
        let chosen = chosen.or_else(|| self.new.replicas.iter().copied().find(in_sync));
        // Who leads and wants to stop goes on as long as nobody in the ISR can take over.
        let chosen = chosen.or(self.new.leader.filter(|id| self.new.isr.contains(id) && self.is_alive(*id)));
        if let Some(leader) = chosen {
            self.lead(leader);
            return;
        }
        // The ISR's last member is not available: an eligible replica has every committed record as well.
        let eligible =
            |id: &BrokerId| self.new.eligible_leader_replicas.contains(id) && self.is_available(*id);
        if let Some(leader) = self.new.replicas.iter().copied().find(eligible) {
            let was: Vec<BrokerId> = self.new.isr.clone();
            self.new.eligible_leader_replicas.retain(|id| *id != leader);
            self.new.eligible_leader_replicas.extend(was.into_iter().filter(|id| *id != leader));
            self.new.isr = vec![leader];
            if self.enough() <= 1 {
                self.new.eligible_leader_replicas.clear();
            }
            self.lead(leader);
            return;
        }
        if self.election == Election::Unclean
            && let Some(leader) = self.new.replicas.iter().copied().find(|id| self.is_available(*id))
        {
            self.new.isr = vec![leader];
            self.new.eligible_leader_replicas.clear();
            self.lead(leader);
            self.new.recovering = true;
            return;
        }
        if let Some(leader) = self.new.leader.take() {
            self.new.last_known_leader = vec![leader];
        }
    }

    /// The partition's new state, if it is another: epochs are raised here and nowhere else.
    pub fn finish(mut self) -> Option<PartitionImage> {
        self.complete_reassignment();
        self.elect();
        // A replica that is none any more must not be heard under the old epoch.
        let left_replicas = self.old.replicas.iter().any(|id| !self.new.replicas.contains(id));
        let leader_changed = self.new.leader != self.old.leader;
        // A smaller ISR alone raises nothing: a fetch of who left it does not count any more, and it comes back only by its
        // current broker epoch. A new epoch would refuse every client and fail the appends that wait, at each dead follower.
        if leader_changed || self.bump_leader_epoch || left_replicas {
            self.new.leader_epoch = LeaderEpoch(self.old.leader_epoch.0 + 1);
        }
        if self.new == *self.old {
            return None;
        }
        self.new.partition_epoch = PartitionEpoch(self.old.partition_epoch.0 + 1);
        Some(self.new)
    }

    /// Raises the leader epoch even if the leader stays.
    pub fn bump_leader_epoch(mut self) -> Self {
        self.bump_leader_epoch = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{cluster, fence};

    fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    fn partition(isr: &[i32], leader: i32) -> PartitionImage {
        PartitionImage {
            replicas: ids(&[1, 2, 3]),
            isr: ids(isr),
            leader: Some(BrokerId(leader)),
            leader_epoch: LeaderEpoch(5),
            partition_epoch: PartitionEpoch(9),
            ..PartitionImage::default()
        }
    }

    #[test]
    fn a_dead_follower_leaves_the_isr_and_the_leader_epoch_stays() {
        let image = cluster(&[(1, ""), (3, "")]);
        let gone = ids(&[2]);
        let new = PartitionChange::new(&image, &partition(&[1, 2, 3], 1), 1).without(&gone).finish().unwrap();
        assert_eq!((new.leader, new.isr), (Some(BrokerId(1)), ids(&[1, 3])));
        assert_eq!((new.leader_epoch, new.partition_epoch), (LeaderEpoch(5), PartitionEpoch(10)));
    }

    #[test]
    fn a_dead_leader_is_replaced_from_the_isr_and_the_epochs_rise() {
        let image = cluster(&[(1, ""), (2, ""), (3, "")]);
        let gone = ids(&[1]);
        let new = PartitionChange::new(&image, &partition(&[1, 2, 3], 1), 1).without(&gone).finish().unwrap();
        assert_eq!((new.leader, new.isr.clone()), (Some(BrokerId(2)), ids(&[2, 3])));
        assert_eq!((new.leader_epoch, new.partition_epoch), (LeaderEpoch(6), PartitionEpoch(10)));
    }

    #[test]
    fn the_last_member_stays_in_the_isr_without_leading() {
        let image = fence(cluster(&[(1, ""), (2, ""), (3, "")]), 1);
        let gone = ids(&[1]);
        let old = partition(&[1], 1);
        let new = PartitionChange::new(&image, &old, 1).without(&gone).finish().unwrap();
        assert_eq!((new.leader, new.isr.clone()), (None, ids(&[1])));
        let image = cluster(&[(1, ""), (2, ""), (3, "")]);
        let back = PartitionChange::new(&image, &new, 1).finish().unwrap();
        assert_eq!(back.leader, Some(BrokerId(1)));
        assert!(back.leader_epoch > new.leader_epoch);
    }

    #[test]
    fn who_leaves_an_isr_under_the_minimum_stays_eligible_and_leads_when_the_isr_is_gone() {
        let image = cluster(&[(1, ""), (2, ""), (3, "")]);
        let old = partition(&[1, 2], 1);
        let first = PartitionChange::new(&image, &old, 2).without(&ids(&[2])).finish().unwrap();
        assert_eq!((first.isr.clone(), first.eligible_leader_replicas.clone()), (ids(&[1]), ids(&[2])));
        let image = fence(image, 1);
        let second = PartitionChange::new(&image, &first, 2).without(&ids(&[1])).finish().unwrap();
        assert_eq!((second.leader, second.isr.clone()), (Some(BrokerId(2)), ids(&[2])));
        assert_eq!(second.eligible_leader_replicas, ids(&[1]));
        let third = PartitionChange::new(&image, &second, 2).with_isr(ids(&[2, 3]), false).finish().unwrap();
        assert!(third.eligible_leader_replicas.is_empty());
    }

    #[test]
    fn an_unclean_election_takes_anyone_and_says_so() {
        let image = fence(cluster(&[(1, ""), (2, ""), (3, "")]), 1);
        let old = partition(&[1], 1);
        let gone = ids(&[1]);
        let change = PartitionChange::new(&image, &old, 1).election(Election::Unclean).without(&gone);
        let new = change.finish().unwrap();
        assert_eq!((new.leader, new.recovering), (Some(BrokerId(2)), true));
    }

    #[test]
    fn the_preferred_leader_takes_over_only_when_asked_and_in_sync() {
        let image = cluster(&[(1, ""), (2, ""), (3, "")]);
        let old = partition(&[1, 2], 2);
        assert!(PartitionChange::new(&image, &old, 1).finish().is_none());
        let new = PartitionChange::new(&image, &old, 1).election(Election::Preferred).finish().unwrap();
        assert_eq!(new.leader, Some(BrokerId(1)));
        let behind = partition(&[2, 3], 2);
        assert!(PartitionChange::new(&image, &behind, 1).election(Election::Preferred).finish().is_none());
    }
}
