//! AlterReplicaLogDirs 1-2: moves replicas of this broker into other log directories (KIP-113). Answered when the moves have
//! begun; DescribeLogDirs shows how far they are.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::alter_replica_log_dirs_response::{Partition, Result as Moved};
use ottla_wire::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: AlterReplicaLogDirsRequest,
) -> Answer {
    let replicas = &dispatcher.context.replicas;
    let permitted = dispatcher.context.access(&call).cluster(Operation::Alter);
    let mut results: Vec<Moved> = Vec::new();
    for directory in &request.dirs {
        for topic in &directory.topics {
            let partitions = topic
                .partitions
                .iter()
                .map(|index| {
                    let moved =
                        permitted.and_then(|()| replicas.move_replica(&topic.name, *index, &directory.path));
                    let error_code = moved.err().unwrap_or(ErrorCode::None).code();
                    Partition { partition_index: *index, error_code }
                })
                .collect();
            results.push(Moved { topic_name: topic.name.clone(), partitions });
        }
    }
    call.ready(&AlterReplicaLogDirsResponse { results, ..Default::default() })
}
