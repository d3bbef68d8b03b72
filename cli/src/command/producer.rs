//! `ottla producer …`: the idempotent and transactional producers that a partition knows.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::client::cluster::Cluster;
use crate::client::{self, transactions};
use crate::failure::Failure;
use crate::output;
use crate::profile::Session;

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Producer {
    /// Producers that a partition knows, with their open transactions
    List(List),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla producer list orders --partition 0")]
pub(crate) struct List {
    /// The topic
    topic: String,
    /// The partition
    #[arg(long, short, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
}

#[derive(Debug, Serialize)]
struct Document {
    producers: Vec<Listed>,
}

/// One producer; -1: there is none of the kind.
#[derive(Debug, Serialize)]
struct Listed {
    producer_id: i64,
    producer_epoch: i32,
    last_sequence: i32,
    last_timestamp_ms: i64,
    coordinator_epoch: i32,
    transaction_start_offset: i64,
}

impl Producer {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        let Self::List(list) = self;
        let mut cluster = Cluster::new(client::bootstrap(session).await?, session.timeout);
        let producers = transactions::producers(&mut cluster, &list.topic, list.partition)
            .await
            .map_err(Failure::from)?
            .into_iter()
            .map(|producer| Listed {
                producer_id: producer.producer_id,
                producer_epoch: producer.producer_epoch,
                last_sequence: producer.last_sequence,
                last_timestamp_ms: producer.last_timestamp,
                coordinator_epoch: producer.coordinator_epoch,
                transaction_start_offset: producer.current_txn_start_offset,
            })
            .collect();
        session.output.show(&Document { producers }, |document| {
            let known = |number: i64| output::optional(Some(number).filter(|number| *number >= 0).as_ref());
            let row = |one: &Listed| {
                vec![
                    one.producer_id.to_string(),
                    one.producer_epoch.to_string(),
                    known(one.last_sequence.into()),
                    known(one.last_timestamp_ms),
                    known(one.coordinator_epoch.into()),
                    known(one.transaction_start_offset),
                ]
            };
            let headings = [
                "PRODUCER",
                "EPOCH",
                "LAST SEQUENCE",
                "LAST TIME (MS)",
                "COORDINATOR EPOCH",
                "OPEN SINCE OFFSET",
            ];
            output::table(&headings, document.producers.iter().map(row))
        })
    }
}
