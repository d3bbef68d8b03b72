//! DeleteShareGroupState 0: no group has a share-partition any more (KIP-932). Brokers ask; each share-partition answers by itself.

use ottla_coordinator::share_state::Command;
use ottla_wire::messages::delete_share_group_state_response::{Partition, Result as Topic};
use ottla_wire::messages::{DeleteShareGroupStateRequest, DeleteShareGroupStateResponse};

use super::share_state_requests::{StateRequest, told};
use super::{Answer, Call, Client, Dispatcher};

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DeleteShareGroupStateRequest,
) -> Answer {
    let state = StateRequest::new(dispatcher, &call, request.group_id);
    call.waiting(async move {
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                let command = Command::Delete;
                let outcome = state.decide(topic.topic_id, asked.partition, &command).await;
                let (error_code, error_message) = told(outcome);
                partitions.push(Partition { partition: asked.partition, error_code, error_message });
            }
            results.push(Topic { topic_id: topic.topic_id, partitions });
        }
        DeleteShareGroupStateResponse { results }
    })
}
