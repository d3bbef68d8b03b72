//! Incremental fetch sessions (KIP-227): a client names its partitions once; later requests carry what changed, later
//! answers only partitions with news.
//!
//! [`Session`] is one session: its partitions, what was last told of each, and which of them may have news. A partition
//! without news is not looked at: the shell marks slots whose log grew ([`Session::mark_ready`]). [`SessionCache`]
//! decides which sessions are kept. Session ids come from outside (random in the shell, fixed in tests).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Epoch of a request that begins a session.
pub const INITIAL_EPOCH: i32 = 0;
/// Epoch of a request outside any session; with a session id it also ends that session.
pub const FINAL_EPOCH: i32 = -1;
/// A session that was not used for this long gives way to any new one (Kafka's constant).
pub const EVICTION_MS: u64 = 120_000;

/// Why a request of a session is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// `FETCH_SESSION_ID_NOT_FOUND`.
    #[error("the fetch session is not known; begin a new one")]
    NotFound,
    /// `INVALID_FETCH_SESSION_EPOCH`.
    #[error("the fetch session's epoch is not the next one")]
    InvalidEpoch,
    /// `FETCH_SESSION_TOPIC_ID_ERROR`.
    #[error("the fetch session was begun with the other way to name topics")]
    TopicIdError,
}

impl SessionError {
    /// Kafka's error code.
    pub fn code(self) -> i16 {
        match self {
            Self::NotFound => 70,
            Self::InvalidEpoch => 71,
            Self::TopicIdError => 106,
        }
    }
}

/// How a request names a topic: by id from version 13 on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicKey {
    /// Its name.
    Name(Arc<str>),
    /// The 128 bits of its id.
    Id(u128),
}

/// A partition as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey {
    /// Its topic.
    pub topic: TopicKey,
    /// Its index.
    pub index: i32,
}

/// What a request asks of one partition; a session keeps it until the client says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRequest {
    /// The first offset wanted.
    pub fetch_offset: i64,
    /// `partition_max_bytes`.
    pub bytes_max: i32,
    /// The leader epoch that the client knows; -1: none.
    pub current_leader_epoch: i32,
    /// Epoch of the last record that the follower has; -1: none.
    pub last_fetched_epoch: i32,
    /// First offset of a follower's log; -1: a consumer.
    pub log_start_offset: i64,
    /// The high watermark that a follower knows; -1 or `i64::MAX`: not told.
    pub high_watermark: i64,
}

/// What an answer says of one partition, as far as a session compares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionAnswer {
    /// Kafka's error code; 0: none.
    pub error_code: i16,
    /// High watermark.
    pub high_watermark: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// Bytes of records.
    pub records_bytes: usize,
    /// A diverging epoch or a preferred replica: always told.
    pub must_tell: bool,
}

/// What was last told of a partition. None in place of it: nothing, or an error that has to be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    high_watermark: i64,
    log_start_offset: i64,
}

/// One partition of a session.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Its name.
    pub key: PartitionKey,
    /// What the client asks of it.
    pub request: PartitionRequest,
    told: Option<Told>,
    is_active: bool,
}

/// A slot that a request added or removed: the shell registers or unregisters its interest in the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotChange {
    /// The slot is new.
    Added(u32),
    /// The slot is gone; its number may be used again later.
    Removed(u32),
}

/// One session, or one request outside any session (which is a session that ends with its answer).
#[derive(Debug)]
pub struct Session {
    uses_topic_ids: bool,
    next_epoch: i32,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_key: HashMap<PartitionKey, u32>,
    /// Slots to look at, in the order in which they get room; a slot stands here at most once.
    active: VecDeque<u32>,
}

impl Session {
    /// A session whose next request has epoch 1.
    pub fn new(uses_topic_ids: bool) -> Self {
        Self {
            uses_topic_ids,
            next_epoch: 1,
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            active: VecDeque::new(),
        }
    }

    /// Checks a request's epoch and takes the next one. A refusal costs no epoch.
    pub fn begin(&mut self, epoch: i32, uses_topic_ids: bool) -> Result<(), SessionError> {
        if uses_topic_ids != self.uses_topic_ids {
            return Err(SessionError::TopicIdError);
        }
        if epoch != self.next_epoch {
            return Err(SessionError::InvalidEpoch);
        }
        self.next_epoch = epoch.checked_add(1).unwrap_or(1);
        Ok(())
    }

    /// Adds a partition or changes what is asked of it; either way it is looked at.
    pub fn ask(&mut self, key: PartitionKey, request: PartitionRequest, changes: &mut Vec<SlotChange>) {
        if let Some(&at) = self.by_key.get(&key) {
            if let Some(slot) = self.slot_mut(at) {
                if slot.request.current_leader_epoch != request.current_leader_epoch {
                    // What was told under another epoch may have been dropped by the client as out of date.
                    slot.told = None;
                }
                slot.request = request;
            }
            self.mark_ready(at);
            return;
        }
        let slot = Slot { key: key.clone(), request, told: None, is_active: false };
        let at = if let Some(at) = self.free.pop() {
            if let Some(place) = self.slots.get_mut(at as usize) {
                *place = Some(slot);
            }
            at
        } else {
            // The wire's count of partitions is bounded by the frame, far below 2^32.
            let Ok(at) = u32::try_from(self.slots.len()) else { return };
            self.slots.push(Some(slot));
            at
        };
        self.by_key.insert(key, at);
        changes.push(SlotChange::Added(at));
        self.mark_ready(at);
    }

    /// Drops a partition.
    pub fn forget(&mut self, key: &PartitionKey, changes: &mut Vec<SlotChange>) {
        let Some(at) = self.by_key.remove(key) else { return };
        if let Some(slot) = self.slots.get_mut(at as usize) {
            *slot = None;
        }
        self.active.retain(|&other| other != at);
        self.free.push(at);
        changes.push(SlotChange::Removed(at));
    }

    /// The partition may have news.
    pub fn mark_ready(&mut self, at: u32) {
        if let Some(slot) = self.slot_mut(at)
            && !slot.is_active
        {
            slot.is_active = true;
            self.active.push_back(at);
        }
    }

    /// How many partitions are to be looked at.
    pub fn active_count(&self) -> usize {
        self.active.len()
    }

    /// The next partition to look at. It comes back by [`Session::mark_ready`] or [`Session::put_back`].
    pub fn take_active(&mut self) -> Option<u32> {
        let at = self.active.pop_front()?;
        if let Some(slot) = self.slot_mut(at) {
            slot.is_active = false;
        }
        Some(at)
    }

    /// Puts slots back that got no room, before all others and in this order: they are first next time.
    pub fn put_back(&mut self, slots: &[u32]) {
        for &at in slots.iter().rev() {
            if let Some(slot) = self.slot_mut(at)
                && !slot.is_active
            {
                slot.is_active = true;
                self.active.push_front(at);
            }
        }
    }

    /// Whether the answer has news of the partition.
    pub fn has_news(&self, at: u32, answer: &PartitionAnswer) -> bool {
        let Some(slot) = self.slot(at) else { return false };
        let told = Told { high_watermark: answer.high_watermark, log_start_offset: answer.log_start_offset };
        answer.error_code != 0 || answer.records_bytes > 0 || answer.must_tell || slot.told != Some(told)
    }

    /// The answer goes out. With records or an error the partition stays active, behind the others: the client may not
    /// have moved on when it asks again.
    pub fn told(&mut self, at: u32, answer: &PartitionAnswer) {
        let is_error = answer.error_code != 0 || answer.must_tell;
        if let Some(slot) = self.slot_mut(at) {
            // After an error the next good answer is news, whatever it says.
            slot.told = (!is_error).then_some(Told {
                high_watermark: answer.high_watermark,
                log_start_offset: answer.log_start_offset,
            });
        }
        if is_error || answer.records_bytes > 0 {
            self.mark_ready(at);
        }
    }

    /// A slot.
    pub fn slot(&self, at: u32) -> Option<&Slot> {
        self.slots.get(at as usize)?.as_ref()
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// All slots in use.
    pub fn slots(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0u32..).zip(&self.slots).filter_map(|(at, slot)| slot.as_ref().map(|slot| (at, slot)))
    }

    /// How many partitions it has.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether it has no partition: such a session ends.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

/// A session as the cache weighs it. `S` is what the shell keeps for it (the session behind its lock).
#[derive(Debug)]
struct Entry<S> {
    id: i32,
    is_privileged: bool,
    size: usize,
    created_ms: u64,
    used_ms: u64,
    shell: S,
}

/// Which sessions are kept: `max.incremental.fetch.session.cache.slots` of them.
///
/// A new one takes the place of one that was not used for [`EVICTION_MS`], or else of one that is worth less: a
/// follower's is worth more than a consumer's, more partitions more than fewer; a consumer's young session (and a follower's
/// against a consumer's) is never taken from it, so that two clients do not push each other out all the time.
#[derive(Debug)]
pub struct SessionCache<S> {
    slots: usize,
    entries: HashMap<i32, Entry<S>>,
    evictions: u64,
}

impl<S: Clone> SessionCache<S> {
    /// An empty cache with so many slots; 0: no sessions at all.
    pub fn new(slots: usize) -> Self {
        Self { slots, entries: HashMap::new(), evictions: 0 }
    }

    /// Finds a session and notes its use.
    pub fn touch(&mut self, now_ms: u64, id: i32) -> Result<S, SessionError> {
        let entry = self.entries.get_mut(&id).ok_or(SessionError::NotFound)?;
        entry.used_ms = now_ms;
        Ok(entry.shell.clone())
    }

    /// Notes how many partitions a session has now.
    pub fn resize(&mut self, id: i32, size: usize) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.size = size;
        }
    }

    /// Ends a session.
    pub fn remove(&mut self, id: i32) -> Option<S> {
        self.entries.remove(&id).map(|entry| entry.shell)
    }

    /// Whether the id is taken (the shell then draws another).
    pub fn contains(&self, id: i32) -> bool {
        self.entries.contains_key(&id)
    }

    /// Keeps a new session if there is room. Gives back what lost its place: an older session, or this one.
    pub fn insert(
        &mut self,
        now_ms: u64,
        id: i32,
        is_privileged: bool,
        size: usize,
        shell: S,
    ) -> Result<Option<S>, S> {
        if self.slots == 0 || id <= 0 || self.entries.contains_key(&id) {
            return Err(shell);
        }
        let mut evicted = None;
        if self.entries.len() >= self.slots {
            let Some(victim) = self.victim(now_ms, id, is_privileged, size) else { return Err(shell) };
            self.evictions += 1;
            evicted = self.remove(victim);
        }
        let entry = Entry { id, is_privileged, size, created_ms: now_ms, used_ms: now_ms, shell };
        self.entries.insert(id, entry);
        Ok(evicted)
    }

    fn victim(&self, now_ms: u64, id: i32, is_privileged: bool, size: usize) -> Option<i32> {
        let oldest = self.entries.values().min_by_key(|entry| (entry.used_ms, entry.id))?;
        if now_ms.saturating_sub(oldest.used_ms) > EVICTION_MS {
            return Some(oldest.id);
        }
        let least = self
            .entries
            .values()
            .filter(|entry| {
                let is_old = now_ms.saturating_sub(entry.created_ms) > EVICTION_MS;
                is_old || (is_privileged && !entry.is_privileged)
            })
            .min_by_key(|entry| (entry.is_privileged, entry.size, entry.id))?;
        ((least.is_privileged, least.size, least.id) < (is_privileged, size, id)).then_some(least.id)
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Partitions in all sessions.
    pub fn partition_count(&self) -> usize {
        self.entries.values().map(|entry| entry.size).sum()
    }

    /// How many sessions lost their place so far.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: i32) -> PartitionKey {
        PartitionKey { topic: TopicKey::Id(1), index }
    }

    fn at(fetch_offset: i64) -> PartitionRequest {
        PartitionRequest {
            fetch_offset,
            bytes_max: 1 << 20,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            high_watermark: -1,
        }
    }

    fn answer(high_watermark: i64, records_bytes: usize) -> PartitionAnswer {
        PartitionAnswer {
            error_code: 0,
            high_watermark,
            log_start_offset: 0,
            records_bytes,
            must_tell: false,
        }
    }

    fn session(partitions: i32) -> Session {
        let mut session = Session::new(true);
        for index in 0..partitions {
            session.ask(key(index), at(0), &mut Vec::new());
        }
        session
    }

    /// Answers all active slots, with records for those given; returns the slots that the answer holds.
    fn round(session: &mut Session, with_records: &[u32]) -> Vec<u32> {
        let mut included = Vec::new();
        for _ in 0..session.active_count() {
            let slot = session.take_active().unwrap();
            let said = answer(5, usize::from(with_records.contains(&slot)) * 100);
            if session.has_news(slot, &said) {
                session.told(slot, &said);
                included.push(slot);
            }
        }
        included
    }

    #[test]
    fn the_first_answer_has_all_and_later_ones_only_news() {
        let mut session = session(3);
        assert_eq!(round(&mut session, &[1]), [0, 1, 2]);
        assert_eq!(session.active_count(), 1, "only the one with records is looked at again");
        assert_eq!(round(&mut session, &[1]), [1], "the client did not move: the records come again");
        session.ask(key(1), at(9), &mut Vec::new());
        assert_eq!(round(&mut session, &[]), Vec::<u32>::new());
        assert_eq!(session.active_count(), 0, "an idle session costs nothing");
        session.mark_ready(2);
        session.mark_ready(2);
        assert_eq!(round(&mut session, &[2]), [2]);
    }

    #[test]
    fn a_moved_watermark_or_log_start_is_news() {
        let mut session = session(1);
        round(&mut session, &[]);
        assert!(!session.has_news(0, &answer(5, 0)));
        assert!(session.has_news(0, &answer(6, 0)));
        assert!(session.has_news(0, &PartitionAnswer { log_start_offset: 2, ..answer(5, 0) }));
    }

    #[test]
    fn an_error_is_repeated_and_its_end_is_news() {
        let mut session = session(1);
        let error = PartitionAnswer { error_code: 1, ..answer(-1, 0) };
        for _ in 0..3 {
            let slot = session.take_active().unwrap();
            assert!(session.has_news(slot, &error));
            session.told(slot, &error);
        }
        let slot = session.take_active().unwrap();
        assert!(session.has_news(slot, &answer(0, 0)));
        session.told(slot, &answer(0, 0));
        assert_eq!(session.take_active(), None);
    }

    #[test]
    fn who_got_no_room_is_first_next_time() {
        let mut session = session(4);
        let order: Vec<u32> = std::iter::from_fn(|| session.take_active()).collect();
        session.told(order[0], &answer(1, 10));
        session.put_back(&order[1..]);
        let next: Vec<u32> = std::iter::from_fn(|| session.take_active()).collect();
        assert_eq!(next, [1, 2, 3, 0]);
    }

    #[test]
    fn partitions_are_added_forgotten_and_their_slots_used_again() {
        let mut session = session(2);
        let mut changes = Vec::new();
        session.forget(&key(0), &mut changes);
        session.forget(&key(7), &mut changes);
        session.ask(key(5), at(0), &mut changes);
        assert_eq!(changes, [SlotChange::Removed(0), SlotChange::Added(0)]);
        assert_eq!(session.slot(0).unwrap().key, key(5));
        assert_eq!((session.len(), session.active_count()), (2, 2));
    }

    #[test]
    fn epochs_go_up_by_one_and_a_refusal_costs_none() {
        let mut session = session(1);
        assert_eq!(session.begin(5, true), Err(SessionError::InvalidEpoch));
        assert_eq!(session.begin(1, false), Err(SessionError::TopicIdError));
        assert_eq!(session.begin(1, true), Ok(()));
        assert_eq!(session.begin(1, true), Err(SessionError::InvalidEpoch));
        session.next_epoch = i32::MAX;
        assert_eq!(session.begin(i32::MAX, true), Ok(()));
        assert_eq!(session.begin(1, true), Ok(()), "after the greatest epoch comes 1, not 0");
    }

    #[test]
    fn errors_have_kafkas_codes() {
        let codes = [SessionError::NotFound, SessionError::InvalidEpoch, SessionError::TopicIdError]
            .map(SessionError::code);
        assert_eq!(codes, [70, 71, 106]);
    }

    #[test]
    fn a_cache_without_slots_keeps_nothing() {
        assert_eq!(SessionCache::new(0).insert(0, 1, true, 5, "s"), Err("s"));
    }

    #[test]
    fn a_follower_takes_the_place_of_the_smallest_consumer() {
        let mut cache = SessionCache::new(2);
        assert_eq!(cache.insert(0, 1, false, 9, "big"), Ok(None));
        assert_eq!(cache.insert(0, 2, false, 3, "small"), Ok(None));
        assert_eq!(cache.insert(1, 3, false, 99, "consumer"), Err("consumer"), "young sessions stay");
        assert_eq!(cache.insert(1, 4, true, 1, "follower"), Ok(Some("small")));
        assert_eq!(cache.insert(1, 5, true, 1, "second"), Ok(Some("big")));
        assert_eq!(
            cache.insert(1, 6, true, 50, "third"),
            Err("third"),
            "followers do not push each other out"
        );
        assert_eq!((cache.len(), cache.partition_count(), cache.evictions()), (2, 2, 2));
    }

    #[test]
    fn an_unused_session_gives_way_to_any_and_an_old_one_to_a_bigger() {
        let mut cache = SessionCache::new(1);
        cache.insert(0, 1, true, 9, "first").unwrap();
        cache.touch(EVICTION_MS, 1).unwrap();
        assert_eq!(cache.insert(EVICTION_MS + 1, 2, true, 9, "equal but newer"), Ok(Some("first")));
        cache.touch(2 * EVICTION_MS + 1, 2).unwrap();
        assert_eq!(cache.insert(2 * EVICTION_MS + 2, 3, true, 8, "smaller"), Err("smaller"));
        assert_eq!(cache.insert(3 * EVICTION_MS + 2, 4, false, 1, "late"), Ok(Some("equal but newer")));
        assert_eq!(cache.touch(0, 2), Err(SessionError::NotFound));
    }
}
