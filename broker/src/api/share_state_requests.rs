//! What the requests of share coordinators have in common: brokers alone may ask, each share-partition is decided and answered by
//! itself, and an answer has a code and words.

use std::sync::Arc;

use ottla_coordinator::share_state::{Command, ReadState, ShareKey};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::Operation;
use super::{Call, Dispatcher};
use crate::context::BrokerContext;
use crate::share::Refused;

/// A request for the state of a group's share-partitions.
pub(super) struct StateRequest {
    context: Arc<BrokerContext>,
    permitted: Result<(), ErrorCode>,
    group_id: Text,
}

impl StateRequest {
    pub(super) fn new(dispatcher: &Dispatcher, call: &Call, group_id: Text) -> Self {
        let context = Arc::clone(&dispatcher.context);
        let permitted = context.access(call).cluster(Operation::ClusterAction);
        Self { context, permitted, group_id }
    }

    /// Has a command decided; what was read, if it reads.
    pub(super) async fn decide(
        &self,
        topic_id: Uuid,
        partition: i32,
        command: &Command,
    ) -> Result<ReadState, Refused> {
        let key = self.key(topic_id, partition)?;
        Ok(self.context.share.state_here(&key, command).await?.unwrap_or_default())
    }

    pub(super) async fn summary(&self, topic_id: Uuid, partition: i32) -> Result<ReadState, Refused> {
        self.context.share.summary_here(&self.key(topic_id, partition)?).await
    }

    fn key(&self, topic_id: Uuid, partition: i32) -> Result<ShareKey, Refused> {
        self.permitted?;
        Ok(ShareKey { group_id: self.group_id.clone(), topic_id, partition })
    }
}

/// The code and the words of an outcome that brings nothing else.
pub(super) fn told<T>(outcome: Result<T, Refused>) -> (i16, Option<Text>) {
    match outcome {
        Ok(_) => (ErrorCode::None.code(), None),
        Err(refused) => (refused.error.code(), Some(refused.message)),
    }
}
