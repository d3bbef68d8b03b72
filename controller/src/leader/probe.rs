//! After a change of leadership: does a broker that does not come still live?
//!
//! A broker that died together with the last leader left no broken session behind that this leader could have seen. A
//! refused connection says that its process has ended; silence says nothing, and its lease runs on.

use std::io;
use std::time::Duration;

use ottla_metadata::image::{BrokerEpoch, BrokerId};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::Life;

const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks each broker once.
pub(super) fn start(brokers: Vec<(BrokerId, BrokerEpoch, String)>, lives: &mpsc::Sender<Life>) {
    for (id, epoch, address) in brokers {
        let lives = lives.clone();
        tokio::spawn(async move {
            let dialled = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(&address)).await;
            if matches!(dialled, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused) {
                // The task is gone only when the node stops.
                drop(lives.send(Life::Refused(id, epoch)).await);
            }
        });
    }
}
