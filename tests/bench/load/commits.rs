//! Commits of offsets at a fixed pace.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ottla_wire::messages::OffsetCommitRequest;
use ottla_wire::messages::offset_commit_request::{Partition, Topic};
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};

use crate::connection::{Connection, coordinator};
use crate::{Settings, merged, percentiles};

/// `rate=` commits a second for `seconds=`, of one partition of `topic=` each, by `groups=` groups that have no members, each on
/// a connection of its own that awaits its answer. One that is late sends the next at once.
pub(crate) async fn run(settings: &Settings) -> Result<Value> {
    let (rate, groups): (u32, u32) = (settings.number("rate")?, settings.number("groups")?);
    let (bootstrap, topic) = (settings.text("bootstrap")?.to_owned(), settings.text("topic")?.to_owned());
    let stay = settings.duration()?;
    LocalSet::new()
        .run_until(async move {
            let mut connections = Vec::new();
            for number in 0..groups {
                let group = format!("commits-{number}");
                let mut connection = Connection::open(&coordinator(&bootstrap, 0, &group).await?).await?;
                // The first one makes the group.
                commit(&mut connection, &group, &topic, 0).await?;
                connections.push((connection, group));
            }
            let pace = Duration::from_secs(1) * groups / rate;
            let began = Instant::now();
            let mut tasks = JoinSet::new();
            for (index, (mut connection, group)) in (0..).zip(connections) {
                let topic = topic.clone();
                tasks.spawn_local(async move {
                    let mut samples = Vec::new();
                    let mut due = began + pace * index / groups;
                    while due < began + stay {
                        tokio::time::sleep_until(due.into()).await;
                        let sent = Instant::now();
                        commit(&mut connection, &group, &topic, samples.len() as i64).await?;
                        samples.push(sent.elapsed());
                        due = (due + pace).max(Instant::now());
                    }
                    anyhow::Ok(samples)
                });
            }
            let mut all = Vec::new();
            while let Some(samples) = tasks.join_next().await {
                all.extend(samples??);
            }
            let seconds = began.elapsed().as_secs_f64();
            let figures = json!({ "commits": all.len(), "commits a second": all.len() as f64 / seconds });
            Ok(merged(figures, percentiles("commit ", all)))
        })
        .await
}

async fn commit(connection: &mut Connection, group: &str, topic: &str, offset: i64) -> Result<()> {
    let partition = Partition { committed_offset: offset, committed_leader_epoch: -1, ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![Topic { name: topic.into(), partitions: vec![partition], ..Default::default() }],
        ..Default::default()
    };
    loop {
        let answer = connection.call(9, &request).await?;
        let code = answer.topics.first().and_then(|topic| topic.partitions.first()).map(|one| one.error_code);
        match code {
            Some(0) => return Ok(()),
            // The coordinator is loading.
            Some(14..=16) => tokio::time::sleep(Duration::from_millis(20)).await,
            code => bail!("commit refused: {code:?}"),
        }
    }
}
