//! Hands out producer ids from blocks that the controller allocates: an id is never given twice, whatever crashes.

use ottla_proto::controller as proto;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::controller_link::{ControllerClient, LinkError};

/// Why no producer id could be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProducerIdError {
    /// The controller did not answer.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The controller refused; Kafka's code.
    #[error("the controller refused a block of producer ids: {1}")]
    Refused(i32, String),
}

/// The ids of the current block that are not used yet.
#[derive(Debug, Default)]
struct Block {
    next: i64,
    end: i64,
}

/// A broker's supply of producer ids.
pub(crate) struct ProducerIds {
    block: Mutex<Block>,
    /// One request to the controller at a time; the others wait and find the new block.
    refill: AsyncMutex<()>,
    controller: ControllerClient,
    broker_id: i32,
}

impl ProducerIds {
    /// An empty supply: the first id asks for the first block.
    pub(crate) fn new(controller: ControllerClient, broker_id: i32) -> Self {
        Self { block: Mutex::default(), refill: AsyncMutex::new(()), controller, broker_id }
    }

    /// A producer id that nobody has had. `broker_epoch` is this broker's current one.
    pub(crate) async fn next(&self, broker_epoch: i64) -> Result<i64, ProducerIdError> {
        loop {
            if let Some(id) = self.take() {
                return Ok(id);
            }
            let _one = self.refill.lock().await;
            if let Some(id) = self.take() {
                return Ok(id);
            }
            let command = proto::AllocateProducerIds { broker_id: self.broker_id, broker_epoch };
            let reply = self.controller.submit(proto::command::Command::AllocateProducerIds(command)).await?;
            if let Some(failure) = reply.failure.filter(|failure| failure.error_code != 0) {
                return Err(ProducerIdError::Refused(failure.error_code, failure.message));
            }
            if let Some(proto::command_reply::Reply::AllocateProducerIds(new)) = reply.reply {
                let end = new.first_producer_id + i64::from(new.count);
                *self.block.lock() = Block { next: new.first_producer_id, end };
            }
        }
    }

    fn take(&self) -> Option<i64> {
        let mut block = self.block.lock();
        (block.next < block.end).then(|| {
            block.next += 1;
            block.next - 1
        })
    }
}
