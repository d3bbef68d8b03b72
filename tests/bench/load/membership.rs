//! Members of classic groups: many small groups, and one large one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use ottla_wire::messages::join_group_request::Protocol;
use ottla_wire::messages::sync_group_request::Assignment;
use ottla_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
    leave_group_request,
};
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};

use crate::connection::{Connection, coordinator};
use crate::{Settings, merged, percentiles};

const SESSION_TIMEOUT_MS: i32 = 45_000;
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
/// As many bytes as a subscription to one topic has.
const METADATA_BYTES: usize = 30;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

struct Member {
    connection: Connection,
    group: String,
    id: String,
    generation: i32,
    /// Bytes that the leader sends each member.
    assignment_bytes: usize,
}

impl Member {
    async fn open(bootstrap: &str, group: String, assignment_bytes: usize) -> Result<Self> {
        let address = coordinator(bootstrap, 0, &group).await?;
        let connection = Connection::open(&address).await?;
        Ok(Self { connection, group, id: String::new(), generation: -1, assignment_bytes })
    }

    async fn try_join(&mut self) -> Result<JoinGroupResponse> {
        let metadata = Bytes::from(vec![0; METADATA_BYTES]);
        let request = JoinGroupRequest {
            group_id: self.group.as_str().into(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member_id: self.id.as_str().into(),
            protocol_type: "consumer".into(),
            protocols: vec![Protocol { name: "range".into(), metadata }],
            ..Default::default()
        };
        self.connection.call(9, &request).await
    }

    /// Joins and gets an assignment, however often the group begins anew meanwhile.
    async fn join(&mut self) -> Result<()> {
        loop {
            let joined = self.try_join().await?;
            match joined.error_code {
                0 => {}
                MEMBER_ID_REQUIRED => {
                    self.id = joined.member_id.to_string();
                    continue;
                }
                14..=16 => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                code => bail!("{}: join refused: {code}", self.group),
            }
            self.generation = joined.generation_id;
            self.id = joined.member_id.to_string();
            let assignment = Bytes::from(vec![0; self.assignment_bytes]);
            let assign = |member_id| Assignment { member_id, assignment: assignment.clone() };
            let request = SyncGroupRequest {
                group_id: self.group.as_str().into(),
                generation_id: self.generation,
                member_id: joined.member_id,
                protocol_type: Some("consumer".into()),
                protocol_name: Some("range".into()),
                // The leader alone is told of members.
                assignments: joined.members.into_iter().map(|member| assign(member.member_id)).collect(),
                ..Default::default()
            };
            match self.connection.call(5, &request).await?.error_code {
                0 => return Ok(()),
                REBALANCE_IN_PROGRESS => {}
                code => bail!("{}: sync refused: {code}", self.group),
            }
        }
    }

    /// False when the group begins anew.
    async fn heartbeat(&mut self) -> Result<bool> {
        let request = HeartbeatRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.id.as_str().into(),
            ..Default::default()
        };
        match self.connection.call(4, &request).await?.error_code {
            0 => Ok(true),
            REBALANCE_IN_PROGRESS => Ok(false),
            code => bail!("{}: heartbeat refused: {code}", self.group),
        }
    }

    async fn leave(mut self) -> Result<()> {
        let member = leave_group_request::Member { member_id: self.id.as_str().into(), ..Default::default() };
        let request = LeaveGroupRequest {
            group_id: self.group.as_str().into(),
            members: vec![member],
            ..Default::default()
        };
        self.connection.call(5, &request).await?;
        Ok(())
    }
}

/// What the members' tasks and whoever started them tell each other.
struct Shared {
    /// The generation in which each member got its assignment.
    generations: RefCell<Vec<i32>>,
    /// How long a member waits between two heartbeats.
    pace: Cell<Duration>,
    /// How long heartbeats took, once they are of interest.
    samples: RefCell<Option<Vec<Duration>>>,
    /// Whether all shall leave.
    ending: Cell<bool>,
    /// Whether the first member shall leave.
    leaving: Cell<bool>,
    /// When it left.
    left: Cell<Option<Instant>>,
}

/// While groups form, members ask this often whether theirs begins anew, so that it is not their patience that is measured.
const FORMING_PACE: Duration = Duration::from_millis(100);
/// The default of Kafka's clients.
const RESTING_PACE: Duration = Duration::from_secs(3);

impl Shared {
    fn new(members: usize) -> Rc<Self> {
        Rc::new(Self {
            generations: RefCell::new(vec![0; members]),
            pace: Cell::new(FORMING_PACE),
            samples: RefCell::new(None),
            ending: Cell::new(false),
            leaving: Cell::new(false),
            left: Cell::new(None),
        })
    }

    /// Whether members from an index on, so many a group, are all in their group's one generation, later than the given.
    fn are_formed(&self, from: usize, group: usize, after: i32) -> bool {
        let generations = self.generations.borrow();
        let mut groups = generations.get(from..).unwrap_or_default().chunks(group);
        groups.all(|members| members.iter().all(|one| *one > after && Some(one) == members.first()))
    }

    async fn await_formed(
        &self,
        from: usize,
        group: usize,
        after: i32,
        tasks: &mut JoinSet<Result<()>>,
    ) -> Result<()> {
        while !self.are_formed(from, group, after) {
            if let Some(ended) = tasks.try_join_next() {
                ended??;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

/// Joins and stays, and tells of its generation.
async fn stays(mut member: Member, index: usize, shared: Rc<Shared>) -> Result<()> {
    loop {
        member.join().await?;
        if let Some(own) = shared.generations.borrow_mut().get_mut(index) {
            *own = member.generation;
        }
        loop {
            if shared.ending.get() || (index == 0 && shared.leaving.get()) {
                shared.left.set(Some(Instant::now()));
                return member.leave().await;
            }
            let began = Instant::now();
            if !member.heartbeat().await? {
                break;
            }
            if let Some(samples) = shared.samples.borrow_mut().as_mut() {
                samples.push(began.elapsed());
            }
            tokio::time::sleep(shared.pace.get()).await;
        }
    }
}

/// `groups=` groups of `members=` members each: until all have their assignments, then heartbeats every 3 s for `seconds=`.
pub(crate) async fn groups(settings: &Settings) -> Result<Value> {
    let (groups, members): (usize, usize) = (settings.number("groups")?, settings.number("members")?);
    let (bootstrap, stay) = (settings.text("bootstrap")?.to_owned(), settings.duration()?);
    LocalSet::new()
        .run_until(async move {
            let shared = Shared::new(groups * members);
            let mut all = Vec::new();
            for number in 0..groups * members {
                all.push(Member::open(&bootstrap, format!("group-{}", number / members), 100).await?);
            }
            let began = Instant::now();
            let mut tasks = JoinSet::new();
            for (index, member) in all.into_iter().enumerate() {
                tasks.spawn_local(stays(member, index, Rc::clone(&shared)));
            }
            shared.await_formed(0, members, 0, &mut tasks).await?;
            let seconds = began.elapsed().as_secs_f64();
            shared.pace.set(RESTING_PACE);
            shared.samples.replace(Some(Vec::new()));
            tokio::time::sleep(stay).await;
            let samples = shared.samples.take().unwrap_or_default();
            shared.ending.set(true);
            // Each leaves when it has slept out.
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            let figures = json!({ "joined seconds": seconds, "heartbeats": samples.len() });
            Ok(merged(figures, percentiles("heartbeat ", samples)))
        })
        .await
}

/// One group of `members=` members over `partitions=` partitions: until all have joined; and until all have joined again when
/// one has left.
pub(crate) async fn rebalance(settings: &Settings) -> Result<Value> {
    let members: usize = settings.number("members")?;
    let partitions: usize = settings.number("partitions")?;
    let bootstrap = settings.text("bootstrap")?.to_owned();
    // Eight bytes of a topic's name and four bytes a partition.
    let assignment_bytes = 8 + 4 * partitions.div_ceil(members);
    LocalSet::new()
        .run_until(async move {
            let shared = Shared::new(members);
            let mut all = Vec::new();
            for _ in 0..members {
                all.push(Member::open(&bootstrap, "large".to_owned(), assignment_bytes).await?);
            }
            let began = Instant::now();
            let mut tasks = JoinSet::new();
            for (index, member) in all.into_iter().enumerate() {
                tasks.spawn_local(stays(member, index, Rc::clone(&shared)));
            }
            shared.await_formed(0, members, 0, &mut tasks).await?;
            let formed = began.elapsed();
            let generation = shared.generations.borrow().first().copied().unwrap_or_default();
            tokio::time::sleep(Duration::from_secs(1)).await;
            shared.leaving.set(true);
            shared.await_formed(1, members, generation, &mut tasks).await?;
            let again = shared.left.get().context("nobody has left")?.elapsed();
            shared.ending.set(true);
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            Ok(json!({ "formed seconds": formed.as_secs_f64(), "after one left seconds": again.as_secs_f64() }))
        })
        .await
}
