//! Watching partitions on their way to other brokers.

use std::collections::BTreeSet;
use std::time::Duration;

use ottla_proto::admin::Partition;

use crate::admin::Admin;
use crate::profile::Session;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Whether a partition is on its way.
pub(crate) fn is_moving(partition: &Partition) -> bool {
    !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty()
}

/// Waits until none of these partitions is on its way any more, telling of each change on stderr. As long as it takes: who does
/// not want to wait any more stops the command, and the moves go on.
pub(crate) async fn watch(
    session: &Session,
    admin: &mut Admin,
    partitions: &[(String, i32)],
) -> anyhow::Result<()> {
    let names: BTreeSet<&String> = partitions.iter().map(|(topic, _)| topic).collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    let mut left_before = usize::MAX;
    loop {
        let topics = admin.describe_topics(names.clone()).await?;
        let left = super::all(&topics)
            .filter(|(_, partition)| is_moving(partition))
            .filter(|(topic, partition)| {
                partitions.iter().any(|(name, index)| name == topic && *index == partition.partition)
            })
            .count();
        if left != left_before && !session.output.quiet {
            eprintln!("on their way: {left} of {}", partitions.len());
        }
        if left == 0 {
            return Ok(());
        }
        left_before = left;
        tokio::time::sleep(PAUSE).await;
    }
}
