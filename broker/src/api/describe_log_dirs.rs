//! DescribeLogDirs 1-5: the log directories of this broker, what lies in them, and how full their disks are (KIP-113,
//! KIP-827, KIP-1066).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_log_dirs_response::{Partition, Result as Directory, Topic};
use ottla_wire::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use ottla_wire::text::Text;

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::replica::{HeldReplica, LogDir};

/// Size of a disk of which nothing is known.
const UNKNOWN_BYTES: i64 = -1;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeLogDirsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    if let Err(code) = context.access(&call).cluster(Operation::Describe) {
        // Versions without the field: an empty list says it all.
        return call.ready(&DescribeLogDirsResponse { error_code: code.code(), ..Default::default() });
    }
    call.waiting(async move {
        // Disks may be slow to say how full they are.
        let described = tokio::task::spawn_blocking(move || describe(&context, &request)).await;
        described.unwrap_or_else(|error| {
            tracing::error!(%error, "log directories could not be described");
            DescribeLogDirsResponse { error_code: ErrorCode::UnknownServerError.code(), ..Default::default() }
        })
    })
}

fn describe(context: &BrokerContext, request: &DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let asked: Option<BTreeSet<(&str, i32)>> = request.topics.as_ref().map(|topics| {
        topics.iter().flat_map(|asked| asked.partitions.iter().map(|index| (&*asked.topic, *index))).collect()
    });
    // A few among many thousands are looked up, not looked for.
    let partitions = match asked {
        Some(asked) => {
            asked.into_iter().filter_map(|(topic, index)| context.replicas.by_name(topic, index)).collect()
        }
        None => context.replicas.partitions(),
    };
    let held: Vec<HeldReplica> = partitions.iter().flat_map(|partition| partition.held()).collect();
    let directories = context.replicas.directories().configured();
    let results = directories
        .map(|directory| {
            let here = held.iter().filter(|replica| Arc::ptr_eq(&replica.log_dir, directory));
            describe_one(directory, here)
        })
        .collect();
    DescribeLogDirsResponse { results, ..Default::default() }
}

fn describe_one<'a>(directory: &LogDir, held: impl Iterator<Item = &'a HeldReplica>) -> Directory {
    let mut answer = Directory {
        log_dir: Text::from(directory.path().to_string_lossy().into_owned()),
        total_bytes: UNKNOWN_BYTES,
        usable_bytes: UNKNOWN_BYTES,
        is_cordoned: directory.is_cordoned(),
        ..Default::default()
    };
    let space = if directory.is_offline() { None } else { rustix::fs::statvfs(directory.path()).ok() };
    let Some(space) = space else {
        answer.error_code = ErrorCode::KafkaStorageError.code();
        return answer;
    };
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(space.f_frsize)).unwrap_or(i64::MAX);
    answer.total_bytes = bytes(space.f_blocks);
    answer.usable_bytes = bytes(space.f_bavail);
    let mut topics: BTreeMap<&str, Vec<Partition>> = BTreeMap::new();
    for replica in held {
        topics.entry(&replica.topic).or_default().push(Partition {
            partition_index: replica.partition,
            partition_size: i64::try_from(replica.size_bytes).unwrap_or(i64::MAX),
            offset_lag: replica.offset_lag,
            is_future_key: replica.is_future,
        });
    }
    answer.topics =
        topics.into_iter().map(|(name, partitions)| Topic { name: Text::from(name), partitions }).collect();
    answer
}
