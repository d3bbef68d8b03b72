//! Elections that somebody or something asks for: ElectLeaders, leaderless partitions when a broker is back, and the return
//! of leadership to preferred leaders.

use ottla_proto::controller as proto;
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::metadata::metadata_record::Record;
use ottla_wire::error_code::ErrorCode;

use super::{Decision, Situation, record};
use crate::config;
use crate::election::{Election, PartitionChange, may_lead};
use crate::image::{MetadataImage, PartitionImage, TopicImage};

/// Partitions that one background decision changes at most, so that a log entry stays small; the rest follows.
pub const BACKGROUND_PARTITIONS_MAX: usize = 1_000;

pub(super) fn decide(
    situation: Situation<'_>,
    command: &proto::ElectLeaders,
) -> Decision<proto::ElectLeadersReply> {
    let election = if command.unclean { Election::Unclean } else { Election::Preferred };
    let mut records = Vec::new();
    let mut partitions = Vec::new();
    if command.partitions.is_empty() {
        for topic in situation.image.topics() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                let outcome = elect(situation, topic, index, partition, election, &mut records);
                // Of all partitions only those are told of in which something happened.
                if !matches!(outcome, Err((ErrorCode::ElectionNotNeeded, _))) {
                    partitions.push(answer(&topic.name, index, outcome));
                }
            }
        }
    }
    for asked in &command.partitions {
        let topic = situation.image.topic_by_name(&asked.topic);
        let partition = topic
            .zip(usize::try_from(asked.partition).ok())
            .and_then(|(topic, index)| topic.partitions.get(index));
        let outcome = match (topic, partition) {
            (Some(topic), Some(partition)) => {
                elect(situation, topic, asked.partition, partition, election, &mut records)
            }
            _ => Err((ErrorCode::UnknownTopicOrPartition, "there is no such partition".to_owned())),
        };
        partitions.push(answer(&asked.topic, asked.partition, outcome));
    }
    Decision { records, reply: proto::ElectLeadersReply { partitions } }
}

fn answer(topic: &str, partition: i32, outcome: Result<(), (ErrorCode, String)>) -> proto::ElectedLeader {
    let (code, message) = outcome.err().unwrap_or((ErrorCode::None, String::new()));
    proto::ElectedLeader { topic: topic.to_owned(), partition, error_code: i32::from(code.code()), message }
}

fn elect(
    situation: Situation<'_>,
    topic: &TopicImage,
    index: i32,
    partition: &PartitionImage,
    election: Election,
    records: &mut Vec<MetadataRecord>,
) -> Result<(), (ErrorCode, String)> {
    let leads = partition.leader.filter(|leader| may_lead(situation.image, *leader));
    let not_needed = match election {
        Election::Preferred => leads.is_some() && leads == partition.replicas.first().copied(),
        Election::Unclean | Election::Clean => leads.is_some(),
    };
    if not_needed {
        return Err((
            ErrorCode::ElectionNotNeeded,
            "the leader is the one that an election would choose".to_owned(),
        ));
    }
    let min_isr = config::min_insync_replicas(situation.image, situation.properties, &topic.name);
    let new = PartitionChange::new(situation.image, partition, min_isr).election(election).finish();
    let elected = new.as_ref().and_then(|new| new.leader);
    let succeeded = match election {
        Election::Preferred => elected.is_some() && elected == partition.replicas.first().copied(),
        Election::Unclean | Election::Clean => elected.is_some(),
    };
    match (succeeded, new) {
        (true, Some(new)) => {
            records.push(record(Record::Partition(new.to_record(topic.id, index))));
            Ok(())
        }
        _ if election == Election::Preferred => Err((
            ErrorCode::PreferredLeaderNotAvailable,
            "the preferred leader is not alive and in the ISR".to_owned(),
        )),
        _ => Err((ErrorCode::EligibleLeadersNotAvailable, "no replica is alive".to_owned())),
    }
}

/// Partitions without a leader that could have one: after a broker was unfenced.
pub fn elect_leaderless(situation: Situation<'_>) -> Vec<MetadataRecord> {
    changes(situation, |topic, partition| {
        if partition.leader.is_some() {
            return None;
        }
        let unclean =
            config::unclean_leader_election_enable(situation.image, situation.properties, &topic.name);
        Some(if unclean { Election::Unclean } else { Election::Clean })
    })
}

/// Partitions led by another than their preferred leader, which is alive and in the ISR: leadership goes back.
pub fn rebalance_preferred(situation: Situation<'_>) -> Vec<MetadataRecord> {
    changes(situation, |_, partition| {
        let preferred = partition.replicas.first()?;
        let is_due = partition.leader.is_some()
            && partition.leader != Some(*preferred)
            && partition.isr.contains(preferred);
        (is_due && may_lead(situation.image, *preferred)).then_some(Election::Preferred)
    })
}

fn changes(
    situation: Situation<'_>,
    wanted: impl Fn(&TopicImage, &PartitionImage) -> Option<Election>,
) -> Vec<MetadataRecord> {
    let image: &MetadataImage = situation.image;
    let mut records = Vec::new();
    for topic in image.topics() {
        for (index, partition) in (0..).zip(&topic.partitions) {
            let Some(election) = wanted(topic, partition) else { continue };
            let min_isr = config::min_insync_replicas(image, situation.properties, &topic.name);
            if let Some(new) = PartitionChange::new(image, partition, min_isr).election(election).finish() {
                records.push(record(Record::Partition(new.to_record(topic.id, index))));
                if records.len() == BACKGROUND_PARTITIONS_MAX {
                    return records;
                }
            }
        }
    }
    records
}
