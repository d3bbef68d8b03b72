//! A broker's life: registration, fencing and unfencing, controlled shutdown, removal.

use ottla_proto::controller as proto;
use ottla_proto::metadata as records;
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::metadata::metadata_record::Record;
use ottla_wire::error_code::ErrorCode;
use uuid::Uuid;

use super::{Refusal, Situation, record};
use crate::config;
use crate::election::{Election, PartitionChange};
use crate::image::{BrokerEpoch, BrokerId, BrokerRegistration};

/// What becomes of a registration.
#[derive(Debug, Clone, PartialEq)]
pub enum RegistrationDecision {
    /// These records register it; its epoch is the index of their entry.
    Register(Vec<MetadataRecord>),
    /// The same process asks again (its answer was lost): it has this epoch.
    Already(BrokerEpoch),
}

/// Registers a broker. `is_held`: another process's lease of the same id runs.
pub fn register(
    situation: Situation<'_>,
    request: &proto::RegisterBrokerRequest,
    is_held: bool,
) -> Result<RegistrationDecision, Refusal> {
    let cluster_id = situation.image.cluster_id();
    if !request.cluster_id.is_empty() && request.cluster_id != cluster_id {
        return Err(Refusal::new(
            ErrorCode::InconsistentClusterId,
            format!(
                "the broker's disk belongs to cluster {}, this is cluster {cluster_id}",
                request.cluster_id
            ),
        ));
    }
    let Some(registration) = &request.registration else {
        return Err(Refusal::new(ErrorCode::InvalidRequest, "the registration is missing"));
    };
    let id = BrokerId(registration.broker_id);
    let Ok(incarnation) = Uuid::from_slice(&registration.incarnation_id) else {
        return Err(Refusal::new(ErrorCode::InvalidRequest, "the incarnation id is not 16 bytes"));
    };
    if id.0 < 0 || registration.endpoints.is_empty() {
        return Err(Refusal::new(
            ErrorCode::InvalidRegistration,
            "a broker needs an id of at least 0 and a listener",
        ));
    }
    if registration.endpoints.iter().any(|endpoint| u16::try_from(endpoint.port).is_err()) {
        return Err(Refusal::new(ErrorCode::InvalidRegistration, "a listener's port is above 65535"));
    }
    let old = situation.image.broker(id);
    if let Some(old) = old {
        if old.incarnation == incarnation {
            return Ok(RegistrationDecision::Already(old.epoch));
        }
        if is_held {
            return Err(Refusal::new(
                ErrorCode::DuplicateBrokerRegistration,
                format!("another process is registered as broker {id} and its lease has not ended"),
            ));
        }
    }
    // Who registers has lost its place: a new process must catch up before it is in sync again. The marker of a clean
    // shutdown names the registration that ended; any other means that the end of its log may be lost.
    let was_clean = old.is_some_and(|old| old.epoch.0 == request.previous_broker_epoch);
    let mut new = Vec::new();
    if let Some(old) = old.filter(|old| !old.fenced) {
        new.push(change(old.id, old.epoch, Some(true), None));
    }
    move_away(situation, id, if was_clean { Leaving::Fenced } else { Leaving::Unclean }, &mut new);
    new.push(record(Record::RegisterBroker(registration.clone())));
    Ok(RegistrationDecision::Register(new))
}

fn change(
    id: BrokerId,
    epoch: BrokerEpoch,
    fenced: Option<bool>,
    in_controlled_shutdown: Option<bool>,
) -> MetadataRecord {
    let change = records::BrokerChangeRecord {
        broker_id: id.0,
        broker_epoch: epoch.0,
        fenced,
        in_controlled_shutdown,
        ..Default::default()
    };
    record(Record::BrokerChange(change))
}

/// Fences a broker: it leaves every ISR but those that it is the last of, and leads nothing.
pub fn fence(situation: Situation<'_>, id: BrokerId, epoch: BrokerEpoch) -> Vec<MetadataRecord> {
    let is_current = |broker: &BrokerRegistration| broker.epoch == epoch && !broker.fenced;
    if !situation.image.broker(id).is_some_and(is_current) {
        return Vec::new();
    }
    let mut new = vec![change(id, epoch, Some(true), None)];
    move_away(situation, id, Leaving::Fenced, &mut new);
    new
}

/// A broker may serve.
pub fn unfence(situation: Situation<'_>, id: BrokerId, epoch: BrokerEpoch) -> Vec<MetadataRecord> {
    let is_current = |broker: &BrokerRegistration| broker.epoch == epoch && broker.fenced;
    if !situation.image.broker(id).is_some_and(is_current) {
        return Vec::new();
    }
    vec![change(id, epoch, Some(false), None)]
}

/// A broker wants to stop: leadership moves away, where somebody else can lead.
pub fn set_controlled_shutdown(
    situation: Situation<'_>,
    id: BrokerId,
    epoch: BrokerEpoch,
) -> Vec<MetadataRecord> {
    let is_current = |broker: &BrokerRegistration| broker.epoch == epoch && !broker.in_controlled_shutdown;
    if !situation.image.broker(id).is_some_and(is_current) {
        return Vec::new();
    }
    let mut new = vec![change(id, epoch, None, Some(true))];
    move_away(situation, id, Leaving::Stopping, &mut new);
    new
}

/// Removes a broker, whether it lives or not; one that lives is fenced in the same entry. Its replicas stay assigned.
pub(super) fn unregister(
    situation: Situation<'_>,
    command: proto::UnregisterBroker,
) -> Result<Vec<MetadataRecord>, Refusal> {
    let id = BrokerId(command.broker_id);
    let broker = situation.image.broker(id).ok_or_else(|| {
        Refusal::new(ErrorCode::BrokerIdNotRegistered, format!("broker {id} is not registered"))
    })?;
    let mut new = if broker.fenced { Vec::new() } else { fence(situation, id, broker.epoch) };
    let record_ = records::UnregisterBrokerRecord { broker_id: id.0, broker_epoch: broker.epoch.0 };
    new.push(record(Record::UnregisterBroker(record_)));
    Ok(new)
}

/// Why a broker leaves its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// It wants to stop, and keeps the partitions that nobody else could lead.
    Stopping,
    /// Its lease is over.
    Fenced,
    /// It is back, and its last process did not end cleanly.
    Unclean,
}

/// Takes a broker out of its partitions' ISRs and leadership.
fn move_away(situation: Situation<'_>, id: BrokerId, leaving: Leaving, new: &mut Vec<MetadataRecord>) {
    let gone = [id];
    let is_gone = leaving != Leaving::Stopping;
    for topic in situation.image.topics() {
        for (index, partition) in (0..).zip(&topic.partitions) {
            let was_eligible =
                leaving == Leaving::Unclean && partition.eligible_leader_replicas.contains(&id);
            if partition.leader != Some(id) && !partition.isr.contains(&id) && !was_eligible {
                continue;
            }
            let min_isr = config::min_insync_replicas(situation.image, situation.properties, &topic.name);
            let unclean =
                config::unclean_leader_election_enable(situation.image, situation.properties, &topic.name);
            let election = if unclean && is_gone { Election::Unclean } else { Election::Clean };
            let mut change =
                PartitionChange::new(situation.image, partition, min_isr).election(election).without(&gone);
            if leaving == Leaving::Unclean {
                change = change.after_unclean_shutdown(id);
            }
            let Some(changed) = change.finish() else { continue };
            if !is_gone && changed.leader.is_none() {
                continue;
            }
            new.push(record(Record::Partition(changed.to_record(topic.id, index))));
        }
    }
}
