//! Does a broker still live whose session broke, or that does not come after a change of leadership?
//!
//! A broker that died together with the last leader left no broken session behind that this leader could have seen. A
//! refused connection says that its process has ended; silence says nothing, and its lease, or its grace, runs on.

use std::io;
use std::time::Duration;

use ottla_metadata::image::{BrokerEpoch, BrokerId};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::Life;

const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A process that is killed closes its sockets one after another: its listener may answer a little longer than its session.
const DIALS_APART: Duration = Duration::from_millis(20);

/// Asks each broker until it refuses, at most so often.
pub(super) fn start(
    brokers: Vec<(BrokerId, BrokerEpoch, String)>,
    dials_max: u32,
    lives: &mpsc::Sender<Life>,
) {
    for (id, epoch, address) in brokers {
        let lives = lives.clone();
        tokio::spawn(async move {
            for _ in 0..dials_max {
                let dialled = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(&address)).await;
                if matches!(dialled, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused) {
                    // The task is gone only when the node stops.
                    drop(lives.send(Life::Refused(id, epoch)).await);
                    break;
                }
                tokio::time::sleep(DIALS_APART).await;
            }
        });
    }
}
