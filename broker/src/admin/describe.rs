//! What the cluster is: brokers, quorum, health, this node's replicas.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use ottla_metadata::config;
use ottla_metadata::image::{BrokerId, MetadataImage};
use ottla_proto::admin as proto;
use ottla_proto::controller::QuorumMember;
use tonic::Status;

use super::{AdminService, unavailable};

/// Partitions of each kind of trouble that are named.
const TROUBLE_MAX: usize = 1_000;

impl AdminService {
    pub(crate) fn cluster(&self) -> proto::DescribeClusterReply {
        let image = self.image.current();
        let mut reply = proto::DescribeClusterReply {
            cluster_id: image.cluster_id().to_owned(),
            controller_id: self.controller.leader_id(),
            metadata_index: image.index().0,
            answering_node: self.node_id,
            topics: i32::try_from(image.topic_count()).unwrap_or(i32::MAX),
            ..Default::default()
        };
        let (mut leaders, mut replicas) = (BTreeMap::new(), BTreeMap::new());
        let count = |counts: &mut BTreeMap<BrokerId, i32>, id: BrokerId| *counts.entry(id).or_default() += 1;
        for topic in image.topics() {
            let min_isr = config::min_insync_replicas(&image, &self.properties, &topic.name);
            let min_isr = usize::try_from(min_isr).unwrap_or(1);
            for (index, partition) in (0..).zip(&topic.partitions) {
                reply.partitions += 1;
                let name = || proto::PartitionRef { topic: topic.name.to_string(), partition: index };
                match partition.leader {
                    Some(leader) => count(&mut leaders, leader),
                    None if reply.offline.len() < TROUBLE_MAX => reply.offline.push(name()),
                    None => {}
                }
                partition.replicas.iter().for_each(|id| count(&mut replicas, *id));
                if partition.isr.len() < partition.replicas.len()
                    && reply.under_replicated.len() < TROUBLE_MAX
                {
                    reply.under_replicated.push(name());
                }
                if partition.isr.len() < min_isr.min(partition.replicas.len())
                    && reply.under_min_isr.len() < TROUBLE_MAX
                {
                    reply.under_min_isr.push(name());
                }
            }
        }
        reply.brokers = image
            .brokers()
            .map(|broker| proto::Broker {
                id: broker.id.0,
                epoch: broker.epoch.0,
                fenced: broker.fenced,
                in_controlled_shutdown: broker.in_controlled_shutdown,
                cordoned: !broker.takes_replicas(),
                rack: broker.rack.clone().unwrap_or_default(),
                listeners: broker
                    .endpoints
                    .iter()
                    .map(|endpoint| proto::Listener {
                        name: endpoint.name.clone(),
                        host: endpoint.host.clone(),
                        port: endpoint.port.into(),
                        security_protocol: endpoint.security_protocol.clone(),
                    })
                    .collect(),
                version: broker.version.clone(),
                grpc_endpoint: broker.grpc_endpoint.clone(),
                leaders: leaders.get(&broker.id).copied().unwrap_or(0),
                replicas: replicas.get(&broker.id).copied().unwrap_or(0),
            })
            .collect();
        reply
    }

    pub(super) async fn quorum(&self) -> Result<proto::DescribeQuorumReply, Status> {
        let quorum = self.controller.describe_quorum().await.map_err(unavailable)?;
        let members = |members: Vec<QuorumMember>| members.into_iter().map(member).collect();
        Ok(proto::DescribeQuorumReply {
            leader_id: quorum.leader_id,
            leader_epoch: quorum.leader_epoch,
            high_watermark: quorum.high_watermark,
            voters: members(quorum.voters),
            observers: members(quorum.observers),
        })
    }

    pub(super) fn own_replicas(&self, topics: &[String]) -> proto::DescribeReplicasReply {
        let mut reply = proto::DescribeReplicasReply { node_id: self.node_id, ..Default::default() };
        let Some(replicas) = self.replicas.get() else { return reply };
        let wanted: BTreeSet<&str> = topics.iter().map(String::as_str).collect();
        for partition in replicas.partitions() {
            if !wanted.is_empty() && !wanted.contains(&**partition.topic()) {
                continue;
            }
            let view = partition.view();
            reply.replicas.push(proto::Replica {
                topic: partition.topic().to_string(),
                partition: partition.index(),
                is_leader: partition.is_leader(),
                start_offset: view.log_start_offset,
                end_offset: view.log_end_offset,
                high_watermark: view.high_watermark,
                size_bytes: i64::try_from(view.size_bytes).unwrap_or(i64::MAX),
                log_directory: view.log_dir.path().display().to_string(),
            });
        }
        let directories = replicas.directories();
        reply.log_directories = directories
            .configured()
            .map(|directory| {
                let space = rustix::fs::statvfs(directory.path()).ok().filter(|_| !directory.is_offline());
                let bytes =
                    |blocks: u64, size: u64| i64::try_from(blocks.saturating_mul(size)).unwrap_or(i64::MAX);
                proto::LogDirectory {
                    path: directory.path().display().to_string(),
                    id: directories.id_of(directory).map(|id| id.to_string()).unwrap_or_default(),
                    total_bytes: space.as_ref().map_or(-1, |space| bytes(space.f_blocks, space.f_frsize)),
                    free_bytes: space.as_ref().map_or(-1, |space| bytes(space.f_bavail, space.f_frsize)),
                    offline: directory.is_offline(),
                }
            })
            .collect();
        reply
    }
}

fn member(member: QuorumMember) -> proto::QuorumMember {
    proto::QuorumMember {
        node_id: member.node_id,
        directory_id: uuid::Uuid::from_slice(&member.incarnation)
            .map(|id| id.to_string())
            .unwrap_or_default(),
        log_end_offset: member.log_end_offset,
        last_fetch_ms: member.last_fetch_ms,
        last_caught_up_ms: member.last_caught_up_ms,
        endpoint: member.endpoint,
    }
}

/// gRPC endpoints of brokers that live.
pub(super) fn grpc_endpoints(image: &MetadataImage) -> BTreeMap<i32, String> {
    image
        .brokers()
        .filter(|broker| !broker.fenced && !broker.grpc_endpoint.is_empty())
        .map(|broker| (broker.id.0, broker.grpc_endpoint.clone()))
        .collect()
}
