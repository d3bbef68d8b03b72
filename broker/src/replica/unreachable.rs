//! Leaders that may be dead: their connection broke a moment ago, or their process listens no more.
//!
//! A client whose leader died asks for metadata at once, before the controllers can know. A client that is then told of the
//! dead leader believes it: librdkafka asks again only with its next tick, up to a second later. A broker whose own fetches
//! from that leader broke at the same moment knows better. The client may be quicker than that, and a broker need not
//! follow that leader in anything: the leader's port is therefore dialled for who asks. One that refuses has no process
//! behind it any more; one that accepts lives, whatever became of single connections. (A port that never let this broker in
//! may be closed to it by a firewall: its refusals say nothing.)
//!
//! The knowledge is good for a moment only: within it the controllers elect another leader, or the leader is well and only
//! this broker cannot reach it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How long clients are not sent to a leader after its connection broke.
const DOUBT: Duration = Duration::from_secs(1);

/// One broker is not dialled more often by this one, however many clients ask.
const DIALS_APART: Duration = Duration::from_millis(50);

/// A dial that takes longer says nothing. Whoever asked waits for it.
const DIAL_MAX: Duration = Duration::from_millis(30);

/// A process that is killed closes its sockets one after another: its port may accept still when a client's connection has
/// broken. A connection that lasts for so long was not accepted by the dead.
const SIGN_OF_LIFE: Duration = Duration::from_millis(5);

/// Nor is a leader believed to live so soon after its connection broke, whatever its port does.
const DYING_MAX: Duration = Duration::from_millis(60);

/// See the module.
#[derive(Debug, Default)]
pub struct Unreachable {
    /// Broker -> when its connection broke.
    since: Mutex<BTreeMap<i32, Instant>>,
    /// One dial of a broker at a time; who comes meanwhile waits for what it tells.
    dialled: Mutex<BTreeMap<i32, Arc<tokio::sync::Mutex<Dialled>>>>,
}

/// What dials of a broker have told.
#[derive(Debug, Default)]
struct Dialled {
    last: Option<Instant>,
    /// The address that has let this broker in; empty: none has.
    accepted_at: String,
}

impl Unreachable {
    /// A connection to a leader broke: the first failure of a row, not each attempt to connect again.
    pub fn broke(&self, broker: i32) {
        self.since.lock().insert(broker, Instant::now());
    }

    /// A leader has answered.
    pub fn answered(&self, broker: i32) {
        self.since.lock().remove(&broker);
    }

    /// Brokers that clients should not be sent to now. Mostly empty.
    pub fn now(&self) -> Vec<i32> {
        let since = self.since.lock();
        since.iter().filter(|(_, since)| since.elapsed() < DOUBT).map(|(broker, _)| *broker).collect()
    }

    /// Its port accepts: unless it may be dying this very moment, its broken connection was a false alarm.
    fn accepted(&self, broker: i32) {
        let mut since = self.since.lock();
        if since.get(&broker).is_some_and(|since| since.elapsed() >= DYING_MAX) {
            since.remove(&broker);
        }
    }

    /// Finds out whether a broker's process lives, by its address. Returns when that is known, or cannot be found out soon.
    pub async fn dial(&self, broker: i32, address: &str) {
        let slot = Arc::clone(self.dialled.lock().entry(broker).or_default());
        let mut dialled = slot.lock().await;
        if dialled.last.is_some_and(|at| at.elapsed() < DIALS_APART) {
            return;
        }
        match tokio::time::timeout(DIAL_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                address.clone_into(&mut dialled.accepted_at);
                if lasts(stream).await {
                    self.accepted(broker);
                } else {
                    self.broke(broker);
                }
            }
            Ok(Err(error))
                if error.kind() == io::ErrorKind::ConnectionRefused && dialled.accepted_at == address =>
            {
                self.broke(broker);
            }
            // No way there, or a slow one: that is not the end of a process.
            Ok(Err(_)) | Err(_) => {}
        }
        dialled.last = Some(Instant::now());
    }
}

/// Whether the other side leaves a connection open for a moment. What it says does not matter.
async fn lasts(mut stream: TcpStream) -> bool {
    let ended = async {
        let mut said = [0; 256];
        while let Ok(1..) = stream.read(&mut said).await {}
    };
    tokio::time::timeout(SIGN_OF_LIFE, ended).await.is_err()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_leader_is_in_doubt_from_the_break_until_it_answers_or_a_moment_has_passed() {
        let unreachable = Unreachable::default();
        assert!(unreachable.now().is_empty());
        unreachable.broke(3);
        assert_eq!(unreachable.now(), [3]);
        unreachable.answered(3);
        assert!(unreachable.now().is_empty());
        unreachable.since.lock().insert(2, Instant::now().checked_sub(DOUBT).unwrap());
        assert!(unreachable.now().is_empty());
    }

    #[tokio::test]
    async fn a_process_that_listens_no_more_is_in_doubt_once_it_is_dialled() {
        let unreachable = Unreachable::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        unreachable.dial(1, &address).await;
        assert!(unreachable.now().is_empty());
        drop(listener);
        // The answer of a moment ago is good enough, or every client would have the leader dialled.
        unreachable.dial(1, &address).await;
        assert!(unreachable.now().is_empty());
        tokio::time::sleep(DIALS_APART).await;
        unreachable.dial(1, &address).await;
        assert_eq!(unreachable.now(), [1]);
    }

    /// A connection that broke is no proof: when the process still accepts, clients are sent there as before.
    #[tokio::test]
    async fn one_broken_connection_of_a_leader_that_lives_is_a_false_alarm() {
        let unreachable = Unreachable::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        unreachable.broke(1);
        unreachable.dial(1, &address).await;
        assert_eq!(unreachable.now(), [1], "it may be closing one socket after another");
        tokio::time::sleep(DYING_MAX).await;
        unreachable.dial(1, &address).await;
        assert!(unreachable.now().is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_is_taken_and_cut_at_once_is_one_of_the_dying() {
        let unreachable = Unreachable::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dying = tokio::spawn(async move { drop(listener.accept().await) });
        unreachable.dial(1, &address).await;
        dying.await.unwrap();
        assert_eq!(unreachable.now(), [1]);
    }

    #[tokio::test]
    async fn a_port_that_never_let_this_broker_in_tells_nothing_by_refusing() {
        let unreachable = Unreachable::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        unreachable.dial(1, &address).await;
        assert!(unreachable.now().is_empty());
    }

    #[tokio::test]
    async fn who_asks_while_a_leader_is_dialled_gets_that_answer() {
        let unreachable = Arc::new(Unreachable::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        unreachable.dial(4, &address).await;
        drop(listener);
        tokio::time::sleep(DIALS_APART).await;
        let asked: Vec<_> = (0..20)
            .map(|_| {
                let (unreachable, address) = (Arc::clone(&unreachable), address.clone());
                tokio::spawn(async move {
                    unreachable.dial(4, &address).await;
                    unreachable.now()
                })
            })
            .collect();
        for asked in asked {
            assert_eq!(asked.await.unwrap(), [4]);
        }
    }
}
