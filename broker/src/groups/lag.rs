//! How far groups are behind, for Prometheus: each coordinator compares what its groups have committed with the high
//! watermarks, of its own partitions at once and of others by asking their leaders, every [`LAG_INTERVAL`].

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use ottla_wire::messages::{ListOffsetsRequest, list_offsets_request};
use ottla_wire::text::Text;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::GroupService;
use crate::replica::ReplicaManager;
use crate::replication::peer::{Peer, PeerError};

/// How old the shown lag may be.
const LAG_INTERVAL: Duration = Duration::from_secs(15);
/// Partitions of groups that are shown; how many are left out is shown too. Whoever watches pays for each.
const SERIES_MAX: usize = 10_000;
/// A version of ListOffsets that names topics and knows of leader epochs.
const LIST_OFFSETS_VERSION: i16 = 7;
/// Kafka's name of the end.
const LATEST: i64 = -1;
/// An ordinary client asks.
const NO_REPLICA: i32 = -1;

/// What is committed and by whom: group, topic, partition, offset.
pub(crate) type Position = (Text, Text, i32, i64);

/// The lag as it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Lag {
    shown: Mutex<Shown>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    /// By group, topic and partition: records behind.
    partitions: BTreeMap<(Text, Text, i32), i64>,
    omitted: usize,
}

impl GroupService {
    /// The lag of the groups that this broker coordinates, as Prometheus reads it.
    pub fn lag_page(&self) -> String {
        self.lag.shown.lock().page()
    }

    /// Looks at the lag again and again until told to stop.
    pub async fn watch_lag(self: Arc<Self>, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LAG_INTERVAL) => {}
                () = stopping.cancelled() => return,
            }
            let (positions, omitted) = self.positions();
            let ends = tokio::select! {
                ends = ends(&self.replicas, &positions) => ends,
                () = stopping.cancelled() => return,
            };
            *self.lag.shown.lock() = Shown::new(positions, omitted, &ends);
        }
    }

    fn positions(&self) -> (Vec<Position>, usize) {
        let shards: Vec<_> = self.shards.read().values().cloned().collect();
        let (mut positions, mut omitted) = (Vec::new(), 0);
        for shard in shards {
            // One that is loading has nothing to say yet.
            let _ = shard.query(|machine| {
                for (group, durable) in machine.durable().groups() {
                    let room = SERIES_MAX.saturating_sub(positions.len());
                    omitted += durable.offsets.len().saturating_sub(room);
                    positions.extend(durable.offsets.iter().take(room).map(|(key, committed)| {
                        (group.clone(), key.topic.clone(), key.partition, committed.offset)
                    }));
                }
                Ok(())
            });
        }
        (positions, omitted)
    }
}

impl Shown {
    fn new(positions: Vec<Position>, omitted: usize, ends: &HashMap<(Text, i32), i64>) -> Self {
        let behind = |(group, topic, partition, offset): Position| {
            let end = *ends.get(&(topic.clone(), partition))?;
            Some(((group, topic, partition), (end - offset).max(0)))
        };
        Self { partitions: positions.into_iter().filter_map(behind).collect(), omitted }
    }

    fn page(&self) -> String {
        let mut page = String::from(
            "# HELP ottla_group_partition_lag Records between a group's committed offset and the high watermark.\n\
             # TYPE ottla_group_partition_lag gauge\n",
        );
        let mut groups: BTreeMap<&Text, i64> = BTreeMap::new();
        // Writing to a string cannot fail.
        for ((group, topic, partition), lag) in &self.partitions {
            *groups.entry(group).or_default() += lag;
            let (group, topic) = (escaped(group), escaped(topic));
            let labels = format!("group=\"{group}\",topic=\"{topic}\",partition=\"{partition}\"");
            let _ = writeln!(page, "ottla_group_partition_lag{{{labels}}} {lag}");
        }
        page.push_str(
            "# HELP ottla_group_lag Records behind, of all partitions of a group.\n\
             # TYPE ottla_group_lag gauge\n",
        );
        for (group, lag) in groups {
            let _ = writeln!(page, "ottla_group_lag{{group=\"{}\"}} {lag}", escaped(group));
        }
        let _ = write!(
            page,
            "# HELP ottla_group_lag_omitted Partitions of groups whose lag is not shown, for there are too many.\n\
             # TYPE ottla_group_lag_omitted gauge\n\
             ottla_group_lag_omitted {}\n\
             # EOF\n",
            self.omitted
        );
        page
    }
}

/// A label's value.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Where partitions end. Those whose leader does not answer are left out until the next look.
pub(crate) async fn ends(replicas: &ReplicaManager, positions: &[Position]) -> HashMap<(Text, i32), i64> {
    let mut ends = HashMap::new();
    let mut elsewhere: BTreeMap<i32, BTreeMap<Text, Vec<i32>>> = BTreeMap::new();
    let image = replicas.image();
    for (_, topic, partition, _) in positions {
        let key = (topic.clone(), *partition);
        if ends.contains_key(&key) {
            continue;
        }
        if let Some(led) = replicas.by_name(topic, *partition).filter(|replica| replica.is_leader()) {
            ends.insert(key, led.high_watermark());
            continue;
        }
        let known = image.topic_by_name(topic).zip(usize::try_from(*partition).ok());
        let known = known.and_then(|(topic, partition)| topic.partitions.get(partition));
        if let Some(leader) = known.and_then(|partition| partition.leader) {
            let asked = elsewhere.entry(leader.0).or_default().entry(topic.clone()).or_default();
            if !asked.contains(partition) {
                asked.push(*partition);
            }
        }
    }
    for (leader, topics) in elsewhere {
        if let Err(error) = ask(replicas, leader, topics, &mut ends).await {
            tracing::debug!(leader, %error, "the lag of groups in partitions led there is not known");
        }
    }
    ends
}

async fn ask(
    replicas: &ReplicaManager,
    leader: i32,
    topics: BTreeMap<Text, Vec<i32>>,
    ends: &mut HashMap<(Text, i32), i64>,
) -> Result<(), PeerError> {
    let Some((host, port)) = replicas.broker_endpoint(leader) else { return Ok(()) };
    let options = &replicas.shared().options;
    let timeout = Duration::from_millis(options.replica_socket_timeout_ms).min(LAG_INTERVAL);
    let client_id = format!("broker-{}-lag", options.broker_id);
    let mut peer = Peer::connect(&host, port, &client_id, timeout, &options.peer_security).await?;
    let partition = |partition_index| list_offsets_request::Partition {
        partition_index,
        timestamp: LATEST,
        ..Default::default()
    };
    let topics = topics.into_iter().map(|(name, partitions)| list_offsets_request::Topic {
        name,
        partitions: partitions.into_iter().map(partition).collect(),
    });
    let request =
        ListOffsetsRequest { replica_id: NO_REPLICA, topics: topics.collect(), ..Default::default() };
    let answer = peer.call(&request, LIST_OFFSETS_VERSION).await?;
    for topic in answer.topics {
        for one in topic.partitions.iter().filter(|one| one.error_code == 0) {
            ends.insert((topic.name.clone(), one.partition_index), one.offset);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_shown_by_partition_and_in_all_where_the_end_is_known() {
        let position =
            |group: &str, partition, offset| (Text::from(group), Text::from("t"), partition, offset);
        let positions = vec![
            position("a\"b", 0, 5),
            position("a\"b", 1, 9),
            position("a\"b", 2, 1),
            position("c", 0, 99),
        ];
        let ends = HashMap::from([((Text::from("t"), 0), 15), ((Text::from("t"), 1), 12)]);
        let page = Shown::new(positions, 7, &ends).page();
        let lines: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                r#"ottla_group_partition_lag{group="a\"b",topic="t",partition="0"} 10"#,
                r#"ottla_group_partition_lag{group="a\"b",topic="t",partition="1"} 3"#,
                r#"ottla_group_partition_lag{group="c",topic="t",partition="0"} 0"#,
                r#"ottla_group_lag{group="a\"b"} 13"#,
                r#"ottla_group_lag{group="c"} 0"#,
                "ottla_group_lag_omitted 7",
            ]
        );
        assert!(page.ends_with("# EOF\n"));
    }
}
