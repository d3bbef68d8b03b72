//! CreateTopics: names, counts, placement or a given assignment, configs; each topic by itself.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_proto::controller as proto;
use ottla_proto::metadata as records;
use ottla_proto::metadata::MetadataRecord;
use ottla_proto::metadata::metadata_record::Record;
use ottla_wire::error_code::ErrorCode;
use uuid::Uuid;

use super::{Decision, Refusal, Situation, record};
use crate::config::{self, ConfigKind};
use crate::election::may_lead;
use crate::image::{BrokerId, MetadataImage, PartitionImage, TopicId};
use crate::placement::{PlacementError, place};
use crate::topic_name;

/// Partitions of one topic, and partitions that one request may create: more would make one log entry too large.
pub const PARTITIONS_MAX: usize = 10_000;

/// Where Kafka keeps its metadata log. Here it is no topic, and nobody may take the name.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// Names with up to so many of `.` and `_` are looked up in each way in which they can be written: 64 look-ups.
const SEPARATORS_TRIED_MAX: usize = 6;

pub(super) fn decide(
    situation: Situation<'_>,
    command: &proto::CreateTopics,
) -> Decision<proto::CreateTopicsReply> {
    let mut state = Creation {
        situation,
        records: Vec::new(),
        names: BTreeMap::new(),
        partitions: 0,
        seed: situation.seed,
    };
    let repeated = repeated(command.topics.iter().map(|topic| topic.name.as_str()));
    let topics = command
        .topics
        .iter()
        .map(|topic| {
            let outcome = if repeated.contains(topic.name.as_str()) {
                Err(Refusal::new(ErrorCode::InvalidRequest, "the topic stands in the request more than once"))
            } else {
                state.create(topic, command.validate_only)
            };
            outcome.unwrap_or_else(|refusal| proto::CreatedTopic {
                name: topic.name.clone(),
                error_code: i32::from(refusal.code.code()),
                message: refusal.message,
                ..Default::default()
            })
        })
        .collect();
    Decision { records: state.records, reply: proto::CreateTopicsReply { topics } }
}

/// Names that stand in a list more than once.
pub(super) fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

struct Creation<'a> {
    situation: Situation<'a>,
    records: Vec<MetadataRecord>,
    /// Names of this request, as metrics show them.
    names: BTreeMap<String, String>,
    partitions: usize,
    seed: u64,
}

impl Creation<'_> {
    fn create(
        &mut self,
        topic: &proto::NewTopic,
        validate_only: bool,
    ) -> Result<proto::CreatedTopic, Refusal> {
        let image = self.situation.image;
        self.check_name(&topic.name)?;
        let configs = check_configs(self.situation, topic)?;
        let replicas = self.replicas(topic)?;
        self.partitions += replicas.len();
        if replicas.len() > PARTITIONS_MAX || self.partitions > PARTITIONS_MAX {
            return Err(Refusal::new(
                ErrorCode::PolicyViolation,
                format!("at most {PARTITIONS_MAX} partitions may be created at once"),
            ));
        }
        let replication_factor = replicas.first().map_or(0, Vec::len);
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let topic_id = TopicId(topic_id(self.situation.seed, self.seed));
        let created = proto::CreatedTopic {
            name: topic.name.clone(),
            topic_id: if validate_only {
                Bytes::copy_from_slice(Uuid::nil().as_bytes())
            } else {
                bytes_of(topic_id)
            },
            partitions: i32::try_from(replicas.len()).unwrap_or(i32::MAX),
            replication_factor: i32::try_from(replication_factor).unwrap_or(i32::MAX),
            ..Default::default()
        };
        self.names.insert(topic_name::collision_key(&topic.name), topic.name.clone());
        if validate_only {
            return Ok(created);
        }
        self.records.push(record(Record::Topic(records::TopicRecord {
            topic_id: bytes_of(topic_id),
            name: topic.name.clone(),
        })));
        for (name, value) in configs {
            self.records.push(record(Record::Config(records::ConfigRecord {
                resource_type: records::ResourceType::Topic.into(),
                resource_name: topic.name.clone(),
                name,
                value: Some(value),
            })));
        }
        for (index, replicas) in (0..).zip(replicas) {
            self.records
                .push(record(Record::Partition(new_partition(image, replicas).to_record(topic_id, index))));
        }
        Ok(created)
    }

    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        topic_name::validate(name)
            .map_err(|error| Refusal::new(ErrorCode::InvalidTopicException, error.to_string()))?;
        if name == METADATA_TOPIC {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!("the topic {name} cannot be created"),
            ));
        }
        if self.situation.image.topic_by_name(name).is_some() {
            return Err(Refusal::new(
                ErrorCode::TopicAlreadyExists,
                format!("Topic '{name}' already exists."),
            ));
        }
        let key = topic_name::collision_key(name);
        // Only a name with one of the two characters can collide with another.
        let other = self
            .names
            .get(&key)
            .cloned()
            .or_else(|| key.contains('_').then(|| colliding(self.situation.image, &key))?);
        match other {
            Some(other) => Err(Refusal::new(
                ErrorCode::InvalidTopicException,
                format!(
                    "Topic '{name}' collides with existing topic: {other} ('.' and '_' are the same in metrics)"
                ),
            )),
            None => Ok(()),
        }
    }

    fn replicas(&self, topic: &proto::NewTopic) -> Result<Vec<Vec<BrokerId>>, Refusal> {
        let image = self.situation.image;
        if !topic.assignments.is_empty() {
            if topic.replication_factor != -1 || topic.partitions != -1 {
                let what =
                    if topic.replication_factor == -1 { "a partition count" } else { "a replication factor" };
                return Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    format!("{what} was given together with an assignment of replicas; give -1"),
                ));
            }
            return check_assignments(image, &topic.assignments);
        }
        let default = |name: &str| config::get_i64(self.situation.properties, name);
        let partitions = match topic.partitions {
            -1 => default("num.partitions"),
            count => i64::from(count),
        };
        let factor = match topic.replication_factor {
            -1 => default("default.replication.factor"),
            factor => i64::from(factor),
        };
        let partitions = usize::try_from(partitions).ok().filter(|count| *count > 0).ok_or_else(|| {
            Refusal::new(ErrorCode::InvalidPartitions, "the number of partitions must be larger than 0")
        })?;
        let factor = usize::try_from(factor).ok().filter(|factor| *factor > 0).ok_or_else(|| {
            Refusal::new(ErrorCode::InvalidReplicationFactor, "the replication factor must be larger than 0")
        })?;
        // Refused before the placement of a huge number is computed.
        if partitions > PARTITIONS_MAX {
            return Err(Refusal::new(
                ErrorCode::PolicyViolation,
                format!("a topic may have at most {PARTITIONS_MAX} partitions when it is created"),
            ));
        }
        place(image, self.seed, 0, partitions, factor).map_err(|error| placement_refusal(&error))
    }
}

pub(super) fn placement_refusal(error: &PlacementError) -> Refusal {
    Refusal::new(ErrorCode::InvalidReplicationFactor, error.to_string())
}

/// A partition as it begins: everyone who can be is in the ISR, and the first of them leads.
pub(super) fn new_partition(image: &MetadataImage, replicas: Vec<BrokerId>) -> PartitionImage {
    let mut isr: Vec<BrokerId> = replicas.iter().copied().filter(|id| may_lead(image, *id)).collect();
    let leader = isr.first().copied();
    if isr.is_empty() {
        // Nobody is alive: the first replica becomes the leader when it is.
        isr.extend(replicas.first());
    }
    PartitionImage { replicas, isr, leader, ..PartitionImage::default() }
}

/// A topic whose name is shown as this one in metrics. A few separators are tried in all ways; only a name with very many of
/// them is compared with every topic.
fn colliding(image: &MetadataImage, key: &str) -> Option<String> {
    let places: Vec<usize> = key.match_indices('_').map(|(at, _)| at).collect();
    if places.len() > SEPARATORS_TRIED_MAX {
        let mut names = image.topics().map(|topic| &*topic.name);
        return names.find(|other| topic_name::collision_key(other) == key).map(ToOwned::to_owned);
    }
    (0..1usize << places.len()).find_map(|dots| {
        let mut name = key.to_owned();
        for (_, at) in places.iter().enumerate().filter(|(bit, _)| dots >> bit & 1 == 1) {
            name.replace_range(at..=at, ".");
        }
        image.topic_by_name(&name).map(|topic| topic.name.to_string())
    })
}

/// Checks an assignment by hand: partitions 0, 1, … each once, the same number of known, distinct brokers.
pub(super) fn check_assignments(
    image: &MetadataImage,
    assignments: &[proto::ReplicaAssignment],
) -> Result<Vec<Vec<BrokerId>>, Refusal> {
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    let mut by_partition = BTreeMap::new();
    for assignment in assignments {
        let replicas: Vec<BrokerId> = assignment.replicas.iter().copied().map(BrokerId).collect();
        let distinct: BTreeSet<BrokerId> = replicas.iter().copied().collect();
        if replicas.is_empty() {
            return refuse(format!("partition {} has no replicas", assignment.partition));
        }
        if distinct.len() != replicas.len() {
            return refuse(format!("partition {} has a broker more than once", assignment.partition));
        }
        if let Some(unknown) = replicas.iter().find(|id| image.broker(**id).is_none()) {
            return refuse(format!("partition {}: broker {unknown} is not registered", assignment.partition));
        }
        let is_cordoned = |id: &&BrokerId| image.broker(**id).is_some_and(|broker| !broker.takes_replicas());
        if let Some(cordoned) = replicas.iter().find(is_cordoned) {
            return refuse(format!(
                "partition {}: all log directories of broker {cordoned} are cordoned",
                assignment.partition
            ));
        }
        if by_partition.insert(assignment.partition, replicas).is_some() {
            return refuse(format!("partition {} stands there more than once", assignment.partition));
        }
    }
    if !by_partition.keys().copied().eq((0..).take(by_partition.len())) {
        return refuse("partitions must be numbered from 0 on without a gap".to_owned());
    }
    let all: Vec<Vec<BrokerId>> = by_partition.into_values().collect();
    if all.windows(2).any(|pair| pair[0].len() != pair[1].len()) {
        return refuse("all partitions must have the same number of replicas".to_owned());
    }
    if all.iter().any(|replicas| !replicas.iter().any(|id| may_lead(image, *id))) {
        return refuse("every partition needs a replica on a broker that is alive".to_owned());
    }
    Ok(all)
}

fn check_configs(
    situation: Situation<'_>,
    topic: &proto::NewTopic,
) -> Result<BTreeMap<String, String>, Refusal> {
    let refuse = |message: String| Refusal::new(ErrorCode::InvalidConfig, message);
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let value = config
            .value
            .as_deref()
            .ok_or_else(|| refuse(format!("Null value not supported for topic configs: {}", config.name)))?;
        let value = config::validate(ConfigKind::Topic, &config.name, value).map_err(refuse)?;
        configs.insert(config.name.clone(), value);
    }
    config::validate_topic(situation.image, situation.properties, &configs).map_err(refuse)?;
    Ok(configs)
}

fn bytes_of(id: TopicId) -> Bytes {
    Bytes::copy_from_slice(id.0.as_bytes())
}

/// A random (version 4) id from the seed.
fn topic_id(a: u64, b: u64) -> Uuid {
    fn mix(mut x: u64) -> u64 {
        // SplitMix64: neighbouring seeds give unrelated ids.
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
    uuid::Builder::from_random_bytes(
        ((u128::from(mix(a)) << 64) | u128::from(mix(b ^ a.rotate_left(32)))).to_be_bytes(),
    )
    .into_uuid()
}
