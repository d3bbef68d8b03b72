//! DeleteShareGroupState 0: no group has a share-partition any more (KIP-932). Brokers ask; each share-partition answers by itself.

use std::sync::Arc;

use ottla_coordinator::share_state::{Command, ShareKey};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::delete_share_group_state_response::{Partition, Result as Topic};
use ottla_wire::messages::{DeleteShareGroupStateRequest, DeleteShareGroupStateResponse};
use ottla_wire::text::Text;

use super::authorization::Operation;
use super::{Answer, Call, Client, Dispatcher};
use crate::share::Refused;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DeleteShareGroupStateRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let permitted = context.access(&call).cluster(Operation::ClusterAction);
    call.waiting(async move {
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                let key = ShareKey {
                    group_id: request.group_id.clone(),
                    topic_id: topic.topic_id,
                    partition: asked.partition,
                };
                let outcome = match permitted {
                    Err(code) => Err(Refused::from(code)),
                    Ok(()) => {
                        let command = Command::Delete;
                        context.share.state_here(&key, &command).await.map(drop)
                    }
                };
                partitions.push(answer(asked.partition, outcome));
            }
            results.push(Topic { topic_id: topic.topic_id, partitions });
        }
        DeleteShareGroupStateResponse { results }
    })
}

fn answer(partition: i32, outcome: Result<(), Refused>) -> Partition {
    let (error_code, error_message) = match outcome {
        Ok(()) => (ErrorCode::None.code(), None::<Text>),
        Err(refused) => (refused.error.code(), Some(refused.message)),
    };
    Partition { partition, error_code, error_message }
}
