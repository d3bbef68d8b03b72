//! ShareGroupHeartbeat 1: a member of a share group joins, lives, leaves, and is told what to read (KIP-932).
//!
//! Partitions that nobody has read for the group are initialised at the share coordinator after the answer; the member is
//! given them with a later heartbeat.

use std::sync::Arc;

use futures_util::stream::StreamExt;
use ottla_coordinator::consumer_group::Partitions;
use ottla_coordinator::group::{Command, Reply};
use ottla_coordinator::share_group::{
    ShareHeartbeat, ShareHeartbeatReply, ShareStateChange, ShareStateCommand,
};
use ottla_coordinator::share_state::{Command as StateCommand, NO_START_OFFSET, ShareKey};
use ottla_metadata::features::SHARE_VERSION;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::ShareGroupHeartbeatRequest;
use ottla_wire::text::Text;

use super::authorization::Operation;
use super::groups::client_of;
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// Share-partitions that are initialised at a time.
const QUESTIONS_AT_ONCE: usize = 32;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ShareGroupHeartbeatRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    if context.image.current().feature_level(SHARE_VERSION) == 0 {
        return call.ready(&ShareHeartbeatReply::failed(ErrorCode::UnsupportedVersion).into_response());
    }
    let access = context.access(&call);
    let mut permitted = access.group(Operation::Read, &request.group_id);
    for topic in request.subscribed_topic_names.iter().flatten() {
        permitted = permitted.and_then(|()| access.topic(Operation::Describe, topic));
    }
    if let Err(code) = permitted {
        return call.ready(&ShareHeartbeatReply::failed(code).into_response());
    }
    let group_id = request.group_id.detached();
    let heartbeat = ShareHeartbeat::from_request(request, client_of(&call));
    let reply = context.groups.begin(Command::ShareHeartbeat(Box::new(heartbeat)));
    call.waiting(async move {
        let mut reply = match reply.await {
            Reply::ShareHeartbeat(reply) => reply,
            _ => ShareHeartbeatReply::failed(ErrorCode::UnknownServerError),
        };
        if let Some((state_epoch, partitions)) = reply.initialize.take() {
            let share = Arc::clone(&context.share);
            share.spawn(initialize(context, group_id, state_epoch, partitions));
        }
        reply.into_response()
    })
}

/// Has the share coordinator keep share-partitions, and tells the group of those that it does.
async fn initialize(context: Arc<BrokerContext>, group_id: Text, state_epoch: i32, partitions: Partitions) {
    let command = StateCommand::Initialize { state_epoch, start_offset: NO_START_OFFSET };
    let keys = partitions.into_iter().flat_map(|(topic_id, numbers)| {
        let key = |partition| ShareKey { group_id: group_id.clone(), topic_id, partition };
        numbers.into_iter().map(key).collect::<Vec<ShareKey>>()
    });
    let questions = keys.map(|key| {
        let (context, command) = (&context, &command);
        async move {
            let outcome = context.share.persist(&key, command).await;
            (key, outcome)
        }
    });
    let outcomes: Vec<_> =
        futures_util::stream::iter(questions).buffer_unordered(QUESTIONS_AT_ONCE).collect().await;
    let mut initialized = Partitions::new();
    for (key, outcome) in outcomes {
        match outcome {
            Ok(_) => {
                initialized.entry(key.topic_id).or_default().insert(key.partition);
            }
            Err(refused) => {
                let (key, message) = (key.coordinator_key(), &*refused.message);
                tracing::warn!(key, error = %refused.error, message, "not initialised; to be tried again");
            }
        }
    }
    if initialized.is_empty() {
        return;
    }
    let change = ShareStateChange::Initialized { partitions: initialized, create: false };
    let command = ShareStateCommand { group_id: group_id.clone(), must_be_empty: false, change };
    let reply = context.groups.submit(Command::ShareState(Box::new(command))).await;
    if reply != Reply::ShareState(ErrorCode::None) {
        tracing::warn!(
            group = &*group_id,
            ?reply,
            "initialised share-partitions are not known to the group yet"
        );
    }
}
