//! One large group of the newer protocol (KIP-848).

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ottla_wire::messages::consumer_group_heartbeat_request::TopicPartition;
use ottla_wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};
use uuid::Uuid;

use crate::Settings;
use crate::connection::{Connection, coordinator, metadata};

const GROUP: &str = "large-consumer";
/// As often as this a member asks when nothing changes: its patience is not to be measured.
const PACE: Duration = Duration::from_millis(200);
const LEAVE_EPOCH: i32 = -1;

struct Member {
    connection: Connection,
    id: String,
    epoch: i32,
    topic: String,
    topic_id: Uuid,
    owned: BTreeSet<i32>,
}

impl Member {
    async fn heartbeat(&mut self, full: bool) -> Result<ConsumerGroupHeartbeatResponse> {
        let owned =
            TopicPartition { topic_id: self.topic_id, partitions: self.owned.iter().copied().collect() };
        let request = ConsumerGroupHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: self.id.as_str().into(),
            member_epoch: self.epoch,
            rebalance_timeout_ms: if self.epoch == 0 { 60_000 } else { -1 },
            subscribed_topic_names: (self.epoch == 0).then(|| vec![self.topic.as_str().into()]),
            topic_partitions: full.then(|| if self.owned.is_empty() { Vec::new() } else { vec![owned] }),
            ..Default::default()
        };
        self.connection.call(1, &request).await
    }
}

struct Shared {
    owned: RefCell<Vec<BTreeSet<i32>>>,
    leaving: Cell<bool>,
    left: Cell<Option<Instant>>,
}

impl Shared {
    /// Waits until the members from an index on own every partition between them, evenly.
    async fn await_all(&self, from: usize, partitions: usize, tasks: &mut JoinSet<Result<()>>) -> Result<()> {
        loop {
            let whole = {
                let owned = self.owned.borrow();
                let members = owned.len() - from;
                let most = partitions.div_ceil(members);
                let all = owned.iter().skip(from);
                all.clone().map(BTreeSet::len).sum::<usize>() == partitions
                    && all.clone().all(|one| one.len() <= most)
            };
            if whole {
                return Ok(());
            }
            if let Some(ended) = tasks.try_join_next() {
                ended??;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// One group of `members=` members over the partitions of `topic=`: until all own their share; and again when one has left.
pub(crate) async fn rebalance(settings: &Settings) -> Result<Value> {
    let members: usize = settings.number("members")?;
    let (bootstrap, topic) = (settings.text("bootstrap")?.to_owned(), settings.text("topic")?.to_owned());
    let found = metadata(&bootstrap, &topic).await?;
    let Some(described) = found.topics.first() else { bail!("no topic {topic}") };
    let (topic_id, partitions) = (described.topic_id, described.partitions.len());
    LocalSet::new()
        .run_until(async move {
            let shared = Rc::new(Shared {
                owned: RefCell::new(vec![BTreeSet::new(); members]),
                leaving: Cell::new(false),
                left: Cell::new(None),
            });
            let address = coordinator(&bootstrap, 0, GROUP).await?;
            let mut tasks = JoinSet::new();
            let mut all = Vec::new();
            for number in 0..members {
                let connection = Connection::open(&address).await?;
                let id = Uuid::from_u128(0x6f74_746c_6100 + number as u128).to_string();
                all.push(Member { connection, id, epoch: 0, topic: topic.clone(), topic_id, owned: BTreeSet::new() });
            }
            let began = Instant::now();
            for (index, member) in all.into_iter().enumerate() {
                tasks.spawn_local(stays(member, index, Rc::clone(&shared)));
            }
            shared.await_all(0, partitions, &mut tasks).await?;
            let formed = began.elapsed();
            tokio::time::sleep(Duration::from_secs(1)).await;
            shared.leaving.set(true);
            shared.await_all(1, partitions, &mut tasks).await?;
            let again = shared.left.get().unwrap_or(began).elapsed();
            tasks.abort_all();
            Ok(json!({ "formed seconds": formed.as_secs_f64(), "after one left seconds": again.as_secs_f64() }))
        })
        .await
}

/// Takes and gives partitions as it is told, at once; the first member leaves when it shall.
async fn stays(mut member: Member, index: usize, shared: Rc<Shared>) -> Result<()> {
    let mut full = true;
    loop {
        if index == 0 && shared.leaving.get() {
            member.epoch = LEAVE_EPOCH;
            shared.left.set(Some(Instant::now()));
            if let Some(own) = shared.owned.borrow_mut().get_mut(index) {
                own.clear();
            }
            member.heartbeat(false).await?;
            return Ok(());
        }
        let answer = member.heartbeat(full).await?;
        full = false;
        match answer.error_code {
            0 => {}
            14..=16 => {
                full = true;
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            code => bail!("heartbeat refused: {code} {:?}", answer.error_message),
        }
        member.epoch = answer.member_epoch;
        if let Some(assignment) = answer.assignment {
            let target: BTreeSet<i32> =
                assignment.topic_partitions.into_iter().flat_map(|topic| topic.partitions).collect();
            // What it owns is told at once whenever it changes: that is how it acknowledges.
            full = target != member.owned;
            member.owned = target;
            if let Some(own) = shared.owned.borrow_mut().get_mut(index) {
                own.clone_from(&member.owned);
            }
        }
        if !full {
            tokio::time::sleep(PACE).await;
        }
    }
}
