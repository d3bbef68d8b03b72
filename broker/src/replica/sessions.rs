//! Fetch requests over fetch sessions (KIP-227): looks only at partitions that may have news, waits without cost until one
//! has, and wakes once.
//!
//! The handler of the Fetch API translates a request into a [`FetchRequest`] and the [`FetchAnswer`] back; everything
//! between is here, the same for consumers and followers, with and without a session.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ottla_replica::fetch_session::{
    FINAL_EPOCH, INITIAL_EPOCH, PartitionAnswer, PartitionKey, PartitionRequest, Session, SessionCache,
    SlotChange, TopicKey,
};
use ottla_wire::error_code::ErrorCode;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::manager::ReplicaManager;
use super::partition::Partition;
use super::read::{FetchPartition, FetchResult, FetchingReplica, Isolation};
use super::shared::PartitionId;
use super::waiter::{FetchInterest, InterestKind};

/// Session ids are drawn this often before a request goes without a session.
const ID_ATTEMPTS_MAX: usize = 8;

/// Which topics may be read: asked before each look at a partition, also of those that a session knows already.
pub struct Permits(Box<dyn Fn(&TopicKey) -> bool + Send + Sync>);

impl Permits {
    /// Of whatever the function says of a topic.
    pub fn new(is_permitted: impl Fn(&TopicKey) -> bool + Send + Sync + 'static) -> Self {
        Self(Box::new(is_permitted))
    }
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permits")
    }
}

/// One Fetch request in this module's words.
#[derive(Debug)]
pub struct FetchRequest {
    /// `max_wait_ms`.
    pub wait_ms_max: u64,
    /// `min_bytes`.
    pub bytes_min: usize,
    /// `max_bytes` of the answer's records; the first batch may be larger.
    pub bytes_max: usize,
    /// What a consumer may see.
    pub isolation: Isolation,
    /// The follower that fetches; none: a consumer.
    pub replica: Option<FetchingReplica>,
    /// Whether followers may answer this consumer (from version 11 on).
    pub allow_follower: bool,
    /// Where the consumer is (KIP-392); empty: it has not said.
    pub rack: String,
    /// 0: none.
    pub session_id: i32,
    /// See [`ottla_replica::fetch_session`].
    pub session_epoch: i32,
    /// Whether the request names topics by id (from version 13 on).
    pub uses_topic_ids: bool,
    /// What may be read; `None`: everything.
    pub permits: Option<Permits>,
    /// What is asked, in the request's order.
    pub partitions: Vec<(PartitionKey, PartitionRequest)>,
    /// What the session drops.
    pub forgotten: Vec<PartitionKey>,
}

/// The answer to a Fetch request.
#[derive(Debug)]
pub struct FetchAnswer {
    /// Of the request as a whole: sessions' errors.
    pub error: ErrorCode,
    /// 0: none.
    pub session_id: i32,
    /// Partitions in the order in which they got room.
    pub partitions: Vec<(PartitionKey, FetchResult)>,
}

/// A session with what belongs to it in this shell.
#[derive(Debug)]
struct SessionShell {
    id: i32,
    interest: Arc<FetchInterest>,
    inner: Mutex<Inner>,
}

/// Tells a waiting request of the session that a later one has arrived: a follower sends changes ahead, and its waiting
/// fetch is answered at once so that the later one is.
type Generation = u32;

#[derive(Debug)]
struct Inner {
    session: Session,
    /// By slot: the partition that the slot is registered with.
    partitions: HashMap<u32, Arc<Partition>>,
    is_registered: bool,
    is_closed: bool,
    generation: Generation,
}

impl SessionShell {
    fn new(id: i32, request: &FetchRequest) -> Arc<Self> {
        let kind = if request.replica.is_some() { InterestKind::Follower } else { InterestKind::Consumer };
        let inner = Inner {
            session: Session::new(request.uses_topic_ids),
            partitions: HashMap::new(),
            is_registered: false,
            is_closed: false,
            generation: 0,
        };
        Arc::new(Self { id, interest: FetchInterest::new(kind), inner: Mutex::new(inner) })
    }

    /// Takes over what the request asks and drops.
    fn update(&self, request: &FetchRequest) -> usize {
        let mut inner = self.inner.lock();
        let mut changes = Vec::new();
        for key in &request.forgotten {
            inner.session.forget(key, &mut changes);
        }
        for (key, asked) in &request.partitions {
            inner.session.ask(key.clone(), *asked, &mut changes);
        }
        for change in changes {
            if let SlotChange::Removed(slot) = change {
                self.unregister(&mut inner, slot);
            }
        }
        inner.session.len()
    }

    fn unregister(&self, inner: &mut Inner, slot: u32) {
        if let Some(partition) = inner.partitions.remove(&slot) {
            partition.remove_interest(&self.interest, slot);
        }
    }

    /// No partition may hold on to a session that has ended.
    fn close(&self) {
        let mut inner = self.inner.lock();
        inner.is_closed = true;
        for (slot, partition) in std::mem::take(&mut inner.partitions) {
            partition.remove_interest(&self.interest, slot);
        }
    }
}

/// Ends a session that lives for one request, also when that request is dropped while it waits.
struct CloseAtEnd(Arc<SessionShell>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// All fetch sessions of a broker.
#[derive(Debug)]
pub struct FetchSessions {
    cache: Mutex<SessionCache<Arc<SessionShell>>>,
}

impl FetchSessions {
    /// `max.incremental.fetch.session.cache.slots`.
    pub fn new(slots: usize) -> Self {
        Self { cache: Mutex::new(SessionCache::new(slots)) }
    }

    /// Sessions, their partitions, and how many lost their place so far.
    pub fn counts(&self) -> (usize, usize, u64) {
        let cache = self.cache.lock();
        (cache.len(), cache.partition_count(), cache.evictions())
    }

    /// Answers a request, after as long a wait as it allows when there is nothing to tell.
    pub async fn fetch(&self, manager: &ReplicaManager, request: FetchRequest) -> FetchAnswer {
        let now_ms = manager.shared().grant.clock().monotonic_ms();
        match request.session_epoch {
            FINAL_EPOCH => {
                self.end(request.session_id);
                self.fetch_once(manager, &request).await
            }
            INITIAL_EPOCH => {
                self.end(request.session_id);
                match self.create(now_ms, &request) {
                    Some(shell) => run(manager, &request, &shell, true).await,
                    None => self.fetch_once(manager, &request).await,
                }
            }
            _ => match self.resume(now_ms, &request) {
                // A follower sends ahead: its next request of this session may be on the way already. Its session stays, for
                // the next partition.
                Ok((shell, 0)) if request.replica.is_none() => {
                    self.end(shell.id);
                    self.fetch_once(manager, &request).await
                }
                Ok((shell, _)) => run(manager, &request, &shell, false).await,
                Err(error) => FetchAnswer { error, session_id: 0, partitions: Vec::new() },
            },
        }
    }

    async fn fetch_once(&self, manager: &ReplicaManager, request: &FetchRequest) -> FetchAnswer {
        let shell = SessionShell::new(0, request);
        shell.update(request);
        let guard = CloseAtEnd(shell);
        run(manager, request, &guard.0, true).await
    }

    fn end(&self, id: i32) {
        let ended = if id == 0 { None } else { self.cache.lock().remove(id) };
        if let Some(shell) = ended {
            shell.close();
        }
    }

    fn create(&self, now_ms: u64, request: &FetchRequest) -> Option<Arc<SessionShell>> {
        let id = (0..ID_ATTEMPTS_MAX)
            .map(|_| rand::random::<i32>() & i32::MAX)
            .find(|&id| id != 0 && !self.cache.lock().contains(id))?;
        let shell = SessionShell::new(id, request);
        shell.inner.lock().is_registered = true;
        let size = shell.update(request);
        let kept = self.cache.lock().insert(now_ms, id, request.replica.is_some(), size, Arc::clone(&shell));
        if let Some(evicted) = kept.ok()? {
            evicted.close();
        }
        Some(shell)
    }

    fn resume(&self, now_ms: u64, request: &FetchRequest) -> Result<(Arc<SessionShell>, usize), ErrorCode> {
        let refuse = |error: ottla_replica::fetch_session::SessionError| ErrorCode::from_code(error.code());
        let shell = self.cache.lock().touch(now_ms, request.session_id).map_err(refuse)?;
        {
            let mut inner = shell.inner.lock();
            inner.session.begin(request.session_epoch, request.uses_topic_ids).map_err(refuse)?;
            inner.generation = inner.generation.wrapping_add(1);
        }
        shell.interest.wake();
        let size = shell.update(request);
        self.cache.lock().resize(shell.id, size);
        Ok((shell, size))
    }
}

/// What one look at the partitions found.
struct Pass {
    found: Vec<(u32, FetchResult)>,
    bytes: usize,
    /// Something that the client has to hear at once.
    is_urgent: bool,
}

async fn run(
    manager: &ReplicaManager,
    request: &FetchRequest,
    shell: &SessionShell,
    is_full: bool,
) -> FetchAnswer {
    let deadline = Instant::now() + Duration::from_millis(request.wait_ms_max);
    let mut may_wait = request.wait_ms_max > 0;
    let generation = shell.inner.lock().generation;
    let is_eligible = request.replica.is_some_and(|replica| manager.is_eligible(replica));
    loop {
        let Some(pass) = look(manager, request, shell, (is_eligible, is_full, generation)) else { break };
        if !may_wait || pass.is_urgent || pass.bytes >= request.bytes_min {
            return answer(shell, pass, generation);
        }
        if !put_back(shell, pass) {
            continue; // It was not registered until now: what came before that has to be seen.
        }
        may_wait = tokio::time::timeout_at(deadline, shell.interest.woken()).await.is_ok();
    }
    FetchAnswer { error: ErrorCode::None, session_id: shell.id, partitions: Vec::new() }
}

/// Reads what active partitions have, as far as there is room. None: a later request of the session has arrived, which
/// answers instead.
fn look(
    manager: &ReplicaManager,
    request: &FetchRequest,
    shell: &SessionShell,
    (is_eligible, is_full, generation): (bool, bool, Generation),
) -> Option<Pass> {
    let mut inner = shell.inner.lock();
    if inner.generation != generation {
        return None;
    }
    let mut marked = Vec::new();
    shell.interest.take_marked(&mut marked);
    for slot in marked {
        inner.session.mark_ready(slot);
    }
    let mut pass = Pass { found: Vec::new(), bytes: 0, is_urgent: false };
    let mut without_room = Vec::new();
    for _ in 0..inner.session.active_count() {
        let Some(slot) = inner.session.take_active() else { break };
        if pass.bytes >= request.bytes_max && pass.bytes > 0 {
            without_room.push(slot);
            if !is_full {
                continue; // A full answer names every partition, also without records.
            }
        }
        let result = look_at((manager, request, is_eligible), shell, &mut inner, slot, pass.bytes);
        if result.is_throttled {
            without_room.push(slot);
        }
        let said = summary(&result);
        if inner.session.has_news(slot, &said) {
            pass.bytes += said.records_bytes;
            pass.is_urgent |= said.error_code != 0 || said.must_tell;
            pass.found.push((slot, result));
        }
    }
    inner.session.put_back(&without_room);
    Some(pass)
}

fn look_at(
    (manager, request, is_eligible): (&ReplicaManager, &FetchRequest, bool),
    shell: &SessionShell,
    inner: &mut Inner,
    slot: u32,
    bytes_so_far: usize,
) -> FetchResult {
    let Some(asked) = inner.session.slot(slot) else {
        return FetchResult::refused(ErrorCode::UnknownServerError);
    };
    if request.permits.as_ref().is_some_and(|permits| !permits.0(&asked.key.topic)) {
        return FetchResult::refused(ErrorCode::TopicAuthorizationFailed);
    }
    let (index, asked_request) = (asked.key.index, asked.request);
    let partition = match inner.partitions.get(&slot) {
        Some(known) if !known.is_deleted() => Arc::clone(known),
        _ => match manager.find(&asked.key.topic, index) {
            Ok(partition) => {
                if inner.is_registered && !inner.is_closed {
                    partition.add_interest(&shell.interest, slot);
                    inner.partitions.insert(slot, Arc::clone(&partition));
                }
                partition
            }
            Err(error) => return refused_here(manager, &asked.key.topic, index, error),
        },
    };
    let room = request.bytes_max.saturating_sub(bytes_so_far);
    let preferred_read_replica = if request.replica.is_none() && request.allow_follower {
        manager.preferred_read_replica(&partition, &request.rack, asked_request.fetch_offset)
    } else {
        -1
    };
    partition.fetch(&FetchPartition {
        offset: asked_request.fetch_offset,
        bytes_max: usize::try_from(asked_request.bytes_max).unwrap_or(0).min(room),
        current_leader_epoch: asked_request.current_leader_epoch,
        last_fetched_epoch: asked_request.last_fetched_epoch,
        log_start_offset: asked_request.log_start_offset,
        isolation: request.isolation,
        replica: request.replica,
        is_eligible,
        allow_follower: request.allow_follower,
        preferred_read_replica,
        at_least_one_batch: bytes_so_far == 0,
    })
}

/// The refusal of a partition that has no replica here; where others have it, with its leader (KIP-951).
fn refused_here(manager: &ReplicaManager, topic: &TopicKey, index: i32, error: ErrorCode) -> FetchResult {
    let topic_id = match topic {
        _ if error != ErrorCode::NotLeaderOrFollower => None,
        TopicKey::Id(id) => Some(Uuid::from_u128(*id)),
        TopicKey::Name(name) => manager.topic_by_name(name).map(|topic| topic.id()),
    };
    let current_leader = topic_id.map(|topic_id| manager.leader_of(PartitionId { topic_id, index }));
    FetchResult { current_leader, ..FetchResult::refused(error) }
}

fn summary(result: &FetchResult) -> PartitionAnswer {
    PartitionAnswer {
        error_code: result.error.code(),
        high_watermark: result.high_watermark,
        log_start_offset: result.log_start_offset,
        records_bytes: result.slice.as_ref().map_or(0, |slice| slice.length),
        must_tell: result.diverging.is_some() || result.preferred_read_replica >= 0,
    }
}

/// Forgets what was read, because the request waits on; what it found is looked at again then. Says whether the fetch will
/// be woken, that is, whether it had been registered before it looked.
fn put_back(shell: &SessionShell, pass: Pass) -> bool {
    let mut inner = shell.inner.lock();
    for (slot, _) in pass.found {
        inner.session.mark_ready(slot);
    }
    std::mem::replace(&mut inner.is_registered, true)
}

fn answer(shell: &SessionShell, pass: Pass, generation: Generation) -> FetchAnswer {
    let mut inner = shell.inner.lock();
    let mut partitions = Vec::with_capacity(pass.found.len());
    let is_current = inner.generation == generation;
    for (slot, result) in pass.found {
        if !is_current {
            inner.session.mark_ready(slot);
            continue;
        }
        inner.session.told(slot, &summary(&result));
        if let Some(asked) = inner.session.slot(slot) {
            partitions.push((asked.key.clone(), result));
        }
    }
    FetchAnswer { error: ErrorCode::None, session_id: shell.id, partitions }
}
