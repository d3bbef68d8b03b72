//! ListOffsets: where partitions begin and end, and where a time is.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{ListOffsetsRequest, list_offsets_request};
use ottla_wire::text::Text;

use super::ClientError;
use super::cluster::{Cluster, RETRY_PAUSE};

/// Newest version that is asked.
const LIST_OFFSETS_VERSION: i16 = 7;
/// Kafka's name of the end.
pub(crate) const LATEST: i64 = -1;
/// Kafka's name of the beginning.
pub(crate) const EARLIEST: i64 = -2;

/// A topic's partition.
pub(crate) type TopicPartition = (std::sync::Arc<str>, i32);

/// Offsets for timestamps, of many partitions; [`LATEST`] and [`EARLIEST`] are timestamps too. A time behind the last record
/// gives -1.
pub(crate) async fn list(
    cluster: &mut Cluster,
    wanted: &BTreeMap<TopicPartition, i64>,
    read_committed: bool,
) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
    let deadline = Instant::now() + cluster.timeout();
    let mut found = BTreeMap::new();
    loop {
        let open: Vec<_> = wanted.iter().filter(|(partition, _)| !found.contains_key(*partition)).collect();
        if open.is_empty() {
            return Ok(found);
        }
        let failure = match ask_leaders(cluster, &open, read_committed, &mut found).await {
            Ok(None) => continue,
            Ok(Some(failure)) | Err(failure) => failure,
        };
        if !failure.is_retriable() || Instant::now() >= deadline {
            return Err(failure);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        let mut topics: Vec<String> = open.iter().map(|((topic, _), _)| topic.to_string()).collect();
        topics.dedup();
        cluster.refresh_until(&topics, deadline).await?;
    }
}

/// As [`list`], but asks once: what came within this one round of answers, which may be nothing.
pub(crate) async fn list_once(
    cluster: &mut Cluster,
    wanted: &BTreeMap<TopicPartition, i64>,
    read_committed: bool,
) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
    let mut found = BTreeMap::new();
    let open: Vec<_> = wanted.iter().collect();
    ask_leaders(cluster, &open, read_committed, &mut found).await?;
    Ok(found)
}

/// One round: asks each leader once. Gives the last reason why a partition is still open.
async fn ask_leaders(
    cluster: &mut Cluster,
    open: &[(&TopicPartition, &i64)],
    read_committed: bool,
    found: &mut BTreeMap<TopicPartition, i64>,
) -> Result<Option<ClientError>, ClientError> {
    let mut failure = None;
    let mut by_leader: HashMap<i32, Vec<(&TopicPartition, i64)>> = HashMap::new();
    for (partition, timestamp) in open {
        match cluster.leader(&partition.0, partition.1) {
            Some(leader) => by_leader.entry(leader).or_default().push((partition, **timestamp)),
            None => {
                failure = Some(ClientError::refused(
                    format!("{}:{}", partition.0, partition.1),
                    ErrorCode::LeaderNotAvailable.code(),
                ));
            }
        }
    }
    for (leader, partitions) in by_leader {
        let response =
            cluster.ask(leader, &request(&partitions, read_committed), LIST_OFFSETS_VERSION).await?;
        for topic in response.topics {
            for one in topic.partitions {
                let name = (std::sync::Arc::from(&*topic.name), one.partition_index);
                if one.error_code == 0 {
                    found.insert(name, one.offset);
                } else {
                    failure = Some(ClientError::refused(
                        format!("offsets of {}:{}", name.0, name.1),
                        one.error_code,
                    ));
                }
            }
        }
    }
    Ok(failure)
}

fn request(partitions: &[(&TopicPartition, i64)], read_committed: bool) -> ListOffsetsRequest {
    let mut topics: BTreeMap<&str, Vec<list_offsets_request::Partition>> = BTreeMap::new();
    for (partition, timestamp) in partitions {
        topics.entry(&partition.0).or_default().push(list_offsets_request::Partition {
            partition_index: partition.1,
            timestamp: *timestamp,
            ..list_offsets_request::Partition::default()
        });
    }
    ListOffsetsRequest {
        replica_id: -1,
        isolation_level: i8::from(read_committed),
        topics: topics
            .into_iter()
            .map(|(name, partitions)| list_offsets_request::Topic { name: Text::from(name), partitions })
            .collect(),
        ..ListOffsetsRequest::default()
    }
}
