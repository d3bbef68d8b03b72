//! Topics: the list, paged, searched and sorted here, and one topic with a page of its partitions.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use ottla_metadata::config;
use ottla_metadata::image::{BrokerId, MetadataImage, PartitionImage, TopicImage};
use ottla_proto::metadata::ResourceType;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use serde_json::{Value, json};

use super::Console;
use super::answer::{Answer, ApiError, Json};
use super::login::Caller;
use super::offsets::{EARLIEST, LATEST, Offsets, Partitions, TopicBytes};
use super::parameters::Parameters;
use crate::api::authorization::Operation;
use crate::internal_topics::is_internal;

/// A topic of the list.
struct Row<'a> {
    topic: &'a TopicImage,
    replication_factor: usize,
    under_replicated: usize,
    under_min_isr: usize,
    offline: usize,
    bytes: Option<i64>,
}

/// `GET /topics?search=&sort=&order=&filter=&internal=&page=&size=`.
pub(super) async fn list(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let parameters = Parameters::parse(query.as_deref())?;
    let page = parameters.page()?;
    let sort = parameters.word("sort", &["name", "partitions", "replication", "bytes", "trouble"])?;
    let descends = parameters.word("order", &["ascending", "descending"])? == "descending";
    let filter = parameters.word("filter", &["all", "trouble"])?;
    let with_internal = parameters.flag("internal")?;
    let search = parameters.text("search").unwrap_or_default().to_lowercase();

    let image = console.admin.image.current();
    let access = caller.access(&console);
    let bytes = console.topic_bytes();
    let mut rows: Vec<Row<'_>> = image
        .topics()
        .filter(|topic| with_internal || !is_internal(&topic.name))
        .filter(|topic| search.is_empty() || topic.name.to_lowercase().contains(&search))
        .filter(|topic| access.sees_topic(Operation::Describe, &topic.name))
        .map(|topic| row(&console, &image, topic, bytes.as_deref()))
        .filter(|row| filter == "all" || row.trouble() > 0)
        .collect();
    rows.sort_by(|one, other| {
        let order = match sort {
            "partitions" => one.topic.partitions.len().cmp(&other.topic.partitions.len()),
            "replication" => one.replication_factor.cmp(&other.replication_factor),
            "bytes" => one.bytes.cmp(&other.bytes),
            "trouble" => one.trouble().cmp(&other.trouble()),
            _ => one.topic.name.cmp(&other.topic.name),
        };
        let order = if descends { order.reverse() } else { order };
        order.then_with(|| one.topic.name.cmp(&other.topic.name))
    });
    let (rows, page) = page.cut(rows);
    let topics: Vec<Value> = rows.iter().map(Row::shown).collect();
    Ok(Json(json!({ "topics": topics, "page": page, "sizes_known": bytes.is_some() })))
}

fn row<'a>(
    console: &Console,
    image: &MetadataImage,
    topic: &'a TopicImage,
    bytes: Option<&TopicBytes>,
) -> Row<'a> {
    let min_isr = config::min_insync_replicas(image, &console.admin.properties, &topic.name);
    let min_isr = usize::try_from(min_isr).unwrap_or(1);
    let count = |is: &dyn Fn(&PartitionImage) -> bool| {
        topic.partitions.iter().filter(|partition| is(partition)).count()
    };
    Row {
        topic,
        replication_factor: topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
        under_replicated: count(&|one| one.isr.len() < one.replicas.len()),
        under_min_isr: count(&|one| one.isr.len() < min_isr.min(one.replicas.len())),
        offline: count(&|one| one.leader.is_none()),
        bytes: bytes.map(|bytes| bytes.get(&Text::from(&*topic.name)).copied().unwrap_or(0)),
    }
}

impl Row<'_> {
    fn trouble(&self) -> usize {
        self.under_replicated + self.under_min_isr + self.offline
    }

    fn shown(&self) -> Value {
        json!({
            "name": &*self.topic.name,
            "id": self.topic.id.0.to_string(),
            "internal": is_internal(&self.topic.name),
            "partitions": self.topic.partitions.len(),
            "replication_factor": self.replication_factor,
            "under_replicated": self.under_replicated,
            "under_min_isr": self.under_min_isr,
            "offline": self.offline,
            "bytes": self.bytes,
        })
    }
}

/// `GET /topics/{name}?page=&size=&filter=`: the topic and some of its partitions.
pub(super) async fn describe(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let parameters = Parameters::parse(query.as_deref())?;
    let page = parameters.page()?;
    let filter = parameters.word("filter", &["all", "trouble"])?;
    let access = caller.access(&console);
    access.topic(Operation::Describe, &name).map_err(ApiError::plain)?;
    let image = console.admin.image.current();
    let topic = image.topic_by_name(&name).ok_or_else(|| unknown_topic(&name))?;
    let row = row(&console, &image, topic, None);
    let wanted: Vec<(i32, &PartitionImage)> = (0..)
        .zip(&topic.partitions)
        .map(|(index, partition)| (index, &**partition))
        .filter(|(_, one)| filter == "all" || one.leader.is_none() || one.isr.len() < one.replicas.len())
        .collect();
    let (wanted, page) = page.cut(wanted);
    let indexes: Vec<i32> = wanted.iter().map(|(index, _)| *index).collect();
    let live = console.live(&Text::from(name.as_str()), &indexes).await;
    let partitions: Vec<Value> =
        wanted.iter().map(|(index, partition)| live.shown(&image, *index, partition)).collect();
    let overridden = access
        .topic(Operation::DescribeConfigs, &name)
        .is_ok()
        .then(|| image.config(ResourceType::Topic, &name).cloned().unwrap_or_default());
    let may = |operation| access.sees_topic(operation, &name);
    let mut answer = row.shown();
    answer["overridden"] = json!(overridden);
    answer["items"] = json!(partitions);
    answer["page"] = page;
    answer["may"] = json!({
        "alter": may(Operation::Alter),
        "delete": may(Operation::Delete),
        "read": may(Operation::Read),
        "alter_configs": may(Operation::AlterConfigs),
        "describe_configs": may(Operation::DescribeConfigs),
    });
    Ok(Json(answer))
}

/// What to say of a topic that is not there.
pub(super) fn unknown_topic(name: &str) -> ApiError {
    ApiError::not_found(ErrorCode::UnknownTopicOrPartition, format!("topic \"{name}\" does not exist"))
}

/// What brokers say of partitions of one topic.
#[derive(Default)]
struct Live {
    topic: Text,
    starts: Offsets,
    ends: Offsets,
    /// By partition and broker.
    sizes: std::collections::HashMap<(i32, i32), i64>,
}

impl Console {
    async fn live(&self, topic: &Text, indexes: &[i32]) -> Live {
        let Ok(context) = self.context() else { return Live::default() };
        let wanted = Partitions::from([(topic.clone(), indexes.to_vec())]);
        let image = context.image.current();
        let Some(known) = image.topic_by_name(topic) else { return Live::default() };
        let chosen = indexes.iter().filter_map(|index| known.partitions.get(usize::try_from(*index).ok()?));
        let mut brokers: Vec<i32> = chosen.flat_map(|one| &one.replicas).map(|id| id.0).collect();
        brokers.sort_unstable();
        brokers.dedup();
        brokers.retain(|id| image.broker(BrokerId(*id)).is_some_and(|broker| !broker.fenced));
        let (starts, ends, directories) = tokio::join!(
            self.offsets_at(context, &wanted, EARLIEST),
            self.offsets_at(context, &wanted, LATEST),
            self.log_directories(context, &brokers, Some(&wanted)),
        );
        let mut live = Live { topic: topic.clone(), starts, ends, ..Live::default() };
        for (broker, answer) in &directories {
            let dirs = answer.iter().flat_map(|answer| &answer.results);
            for one in dirs.flat_map(|dir| &dir.topics).flat_map(|topic| &topic.partitions) {
                if !one.is_future_key {
                    live.sizes.insert((one.partition_index, *broker), one.partition_size);
                }
            }
        }
        live
    }
}

impl Live {
    fn shown(&self, image: &MetadataImage, index: i32, partition: &PartitionImage) -> Value {
        let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        let key = (self.topic.clone(), index);
        let replicas: Vec<Value> = partition
            .replicas
            .iter()
            .map(|id| {
                json!({
                    "broker": id.0,
                    "in_sync": partition.isr.contains(id),
                    // The last one in sync stays that while its broker is down.
                    "alive": image.broker(*id).is_some_and(|broker| !broker.fenced),
                    "bytes": self.sizes.get(&(index, id.0)),
                })
            })
            .collect();
        json!({
            "partition": index,
            "leader": partition.leader.map(|leader| leader.0),
            "leader_epoch": partition.leader_epoch.0,
            "preferred": partition.replicas.first().map(|id| id.0),
            "replicas": replicas,
            "isr": ids(&partition.isr),
            "elr": ids(&partition.eligible_leader_replicas),
            "adding": ids(&partition.adding_replicas),
            "removing": ids(&partition.removing_replicas),
            "start_offset": self.starts.get(&key),
            "end_offset": self.ends.get(&key),
            "bytes": partition.leader.and_then(|leader| self.sizes.get(&(index, leader.0))),
        })
    }
}
