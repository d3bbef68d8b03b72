//! The cluster as a whole: who asks, brokers, quorum, what is not well, one broker's disks.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use ottla_proto::admin as proto;
use ottla_proto::admin::admin_server::Admin;
use ottla_wire::error_code::ErrorCode;
use serde_json::{Value, json};

use super::Console;
use super::answer::{Answer, ApiError, Json};
use super::login::Caller;
use crate::api::authorization::Operation;

/// Partitions of each kind of trouble that are named; all are counted.
const NAMED_MAX: usize = 50;

/// `GET /session`: who asks, and what may be offered to them.
pub(super) async fn session(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let access = caller.access(&console);
    Ok(Json(json!({
        "principal": caller.principal.to_string(),
        "signed_in": caller.is_known,
        "login_offered": console.offers_login(),
        "authorizer": console.admin.authorizer.is_some(),
        "node_id": console.admin.node_id,
        "version": env!("CARGO_PKG_VERSION"),
        "is_broker": console.broker.get().is_some(),
        "may": {
            "create_topics": access.has_cluster(Operation::Create),
            "alter_cluster": access.has_cluster(Operation::AlterConfigs),
        },
    })))
}

/// `GET /cluster`: the map.
pub(super) async fn cluster(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let reply = console.overview().await?;
    let sees_trouble = caller.access(&console).has_cluster(Operation::Describe);
    let named = |partitions: &[proto::PartitionRef]| {
        let name = |one: &proto::PartitionRef| json!({ "topic": one.topic, "partition": one.partition });
        json!({
            "count": partitions.len(),
            "first": partitions.iter().take(NAMED_MAX).map(name).collect::<Vec<_>>(),
        })
    };
    let trouble = sees_trouble.then(|| {
        json!({
            "offline": named(&reply.offline),
            "under_min_isr": named(&reply.under_min_isr),
            "under_replicated": named(&reply.under_replicated),
        })
    });
    let disks = if sees_trouble { console.broker_disks() } else { BTreeMap::new() };
    let broker = |broker: &proto::Broker| {
        let mut answer = shown(broker);
        answer["disks"] = json!(disks.get(&broker.id).map(|disks| {
            json!({
                "directories": disks.directories,
                "failed": disks.failed,
                "log_bytes": disks.log_bytes,
                "total_bytes": disks.total_bytes,
                "free_bytes": disks.free_bytes,
            })
        }));
        answer
    };
    let brokers: Vec<Value> = reply.brokers.iter().map(broker).collect();
    Ok(Json(json!({
        "cluster_id": reply.cluster_id,
        "controller_id": console.admin.controller.leader_id(),
        "answering_node": reply.answering_node,
        "metadata_index": reply.metadata_index,
        "topics": reply.topics,
        "partitions": reply.partitions,
        "trouble": trouble,
        "brokers": brokers,
    })))
}

fn shown(broker: &proto::Broker) -> Value {
    let listener = |listener: &proto::Listener| {
        json!({
            "name": listener.name,
            "host": listener.host,
            "port": listener.port,
            "security_protocol": listener.security_protocol,
        })
    };
    json!({
        "id": broker.id,
        "epoch": broker.epoch,
        "rack": broker.rack,
        "state": match (broker.fenced, broker.in_controlled_shutdown) {
            (true, _) => "fenced",
            (false, true) => "stopping",
            // It serves, but takes no further replicas.
            (false, false) if broker.cordoned => "cordoned",
            (false, false) => "running",
        },
        "version": broker.version,
        "grpc_endpoint": broker.grpc_endpoint,
        "leaders": broker.leaders,
        "replicas": broker.replicas,
        "listeners": broker.listeners.iter().map(listener).collect::<Vec<_>>(),
    })
}

/// `GET /quorum`: the controllers.
pub(super) async fn quorum(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let request = caller.request(proto::DescribeQuorumRequest {});
    let reply = console.admin.describe_quorum(request).await?.into_inner();
    let member = |member: &proto::QuorumMember| {
        json!({
            "node_id": member.node_id,
            "endpoint": member.endpoint,
            "log_end_offset": member.log_end_offset,
            "lag": (reply.high_watermark - member.log_end_offset).max(0),
            "last_fetch_ms": member.last_fetch_ms,
            "last_caught_up_ms": member.last_caught_up_ms,
        })
    };
    Ok(Json(json!({
        "leader_id": reply.leader_id,
        "leader_epoch": reply.leader_epoch,
        "high_watermark": reply.high_watermark,
        "voters": reply.voters.iter().map(member).collect::<Vec<_>>(),
        "observers": reply.observers.iter().map(member).collect::<Vec<_>>(),
    })))
}

/// `GET /brokers/{id}`: one broker with its disks.
pub(super) async fn broker(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    let unknown = || ApiError::not_found(ErrorCode::BrokerIdNotRegistered, "there is no such broker");
    let id: i32 = id.parse().map_err(|_| unknown())?;
    let reply = console.overview().await?;
    let found = reply.brokers.iter().find(|broker| broker.id == id).ok_or_else(unknown)?;
    let mut answer = shown(found);
    answer["is_controller"] = json!(console.admin.controller.leader_id() == id);
    let (directories, error) = if caller.access(&console).cluster(Operation::Describe).is_err() {
        (None, Some("its disks are for those with Describe of the cluster".to_owned()))
    } else {
        match console.disks(id).await {
            Ok(directories) => (Some(directories), None),
            Err(error) => (None, Some(error.message().to_owned())),
        }
    };
    answer["log_directories"] = json!(directories);
    answer["log_directories_error"] = json!(error);
    Ok(Json(answer))
}

impl Console {
    /// The cluster at the index that is applied: counted once for each, however many look. Where the brokers are is for everybody, as
    /// in the Kafka protocol; how they are is not.
    async fn overview(&self) -> Result<Arc<proto::DescribeClusterReply>, ApiError> {
        self.admin.ready().await?;
        let index = self.admin.image.current().index().0;
        let known = self.overview.lock().clone();
        if let Some(known) = known.filter(|known| known.metadata_index == index) {
            return Ok(known);
        }
        let counted = Arc::new(self.admin.cluster());
        *self.overview.lock() = Some(Arc::clone(&counted));
        Ok(counted)
    }

    async fn disks(&self, broker: i32) -> Result<Vec<Value>, ApiError> {
        let context = self.context()?;
        let answers = self.log_directories(context, &[broker], None).await;
        let answer =
            answers.into_iter().next().map(|(_, answer)| answer).ok_or_else(ApiError::no_broker)??;
        let directory = |directory: &ottla_wire::messages::describe_log_dirs_response::Result| {
            let partitions = directory.topics.iter().flat_map(|topic| &topic.partitions);
            let (count, bytes) =
                partitions.fold((0, 0), |(count, bytes), one| (count + 1, bytes + one.partition_size));
            json!({
                "path": &*directory.log_dir,
                "error": (directory.error_code != 0)
                    .then(|| ErrorCode::from_code(directory.error_code).name()),
                "replicas": count,
                "log_bytes": bytes,
                "total_bytes": directory.total_bytes,
                "free_bytes": directory.usable_bytes,
                "cordoned": directory.is_cordoned,
            })
        };
        Ok(answer.results.iter().map(directory).collect())
    }
}
