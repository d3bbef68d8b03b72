//! Tests of the machine: a harness that plays the shell, and one file per subject.

mod consumer;
mod expiry;
mod failover;
mod heartbeats;
mod membership;
mod offsets;
mod schedule;
mod static_members;
mod streams;

use std::collections::BTreeMap;

use super::*;

/// Plays the shell: numbers requests, keeps the log, commits appends at once or when told.
pub(super) struct Harness {
    pub(super) machine: GroupCoordinator,
    pub(super) now: Now,
    pub(super) replies: BTreeMap<RequestToken, Reply>,
    pub(super) log: Vec<(Option<i64>, CoordinatorRecord)>,
    pub(super) appends: Vec<Append>,
    /// Appends wait until `commit` or `fail`.
    pub(super) held: bool,
    tokens: u64,
    ids: u64,
}

pub(super) fn config() -> GroupConfig {
    GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() }
}

pub(super) fn text(value: &str) -> Text {
    Text::from(value)
}

/// What a consumer that subscribes to these topics tells the leader: version 0, topics, no user data.
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    let length = |bytes: usize| i16::try_from(bytes).unwrap().to_be_bytes();
    let mut out = vec![0, 0];
    out.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        out.extend(length(topic.len()));
        out.extend(topic.as_bytes());
    }
    out.extend([0, 0, 0, 0]);
    Bytes::from(out)
}

impl Harness {
    pub(super) fn new(config: GroupConfig) -> Self {
        let mut harness = Self {
            machine: GroupCoordinator::new(config),
            now: Now { monotonic_ms: 1_000, wall_ms: 1_700_000_000_000 },
            replies: BTreeMap::new(),
            log: Vec::new(),
            appends: Vec::new(),
            held: false,
            tokens: 0,
            ids: 0,
        };
        harness.effects(GroupCoordinator::lead);
        harness
    }

    fn effects(&mut self, act: impl FnOnce(&mut GroupCoordinator, Now, &mut Effects)) {
        let mut effects = Effects::default();
        act(&mut self.machine, self.now, &mut effects);
        for (token, reply) in effects.replies {
            assert!(self.replies.insert(token, reply).is_none(), "{token:?} is answered twice");
        }
        assert!(effects.appends.iter().all(|append| !append.records.is_empty()));
        self.appends.extend(effects.appends);
        if !self.held {
            self.commit();
        }
    }

    /// Every append on its way is committed, in order.
    pub(super) fn commit(&mut self) {
        while !self.appends.is_empty() {
            let append = self.appends.remove(0);
            let producer = append.transaction.map(|transaction| transaction.producer_id);
            for record in append.records {
                let offset = i64::try_from(self.log.len()).unwrap();
                self.machine.apply(offset, producer, &record.key, record.value.as_ref()).unwrap();
                self.log.push((producer, record));
            }
            self.effects(|machine, now, effects| machine.committed(now, append.ticket, effects));
        }
    }

    /// Every append on its way is over its time.
    pub(super) fn time_out(&mut self) {
        for ticket in self.appends.iter().map(|append| append.ticket).collect::<Vec<_>>() {
            self.effects(|machine, now, effects| machine.timed_out(now, ticket, effects));
        }
    }

    /// The first append on its way fails.
    pub(super) fn fail(&mut self, error: ErrorCode) {
        let append = self.appends.remove(0);
        self.effects(|machine, now, effects| machine.failed(now, append.ticket, error, effects));
    }

    pub(super) fn marker(&mut self, producer_id: i64, commit: bool) {
        let offset = i64::try_from(self.log.len()).unwrap();
        self.machine.apply_marker(offset, producer_id, commit);
    }

    pub(super) fn send(&mut self, command: Command) -> RequestToken {
        self.tokens += 1;
        let token = RequestToken(self.tokens);
        self.effects(|machine, now, effects| machine.step(now, token, command, effects));
        token
    }

    pub(super) fn call(&mut self, command: Command) -> Reply {
        let token = self.send(command);
        self.answer(token)
    }

    pub(super) fn answer(&mut self, token: RequestToken) -> Reply {
        self.replies.remove(&token).unwrap_or_else(|| panic!("{token:?} is not answered"))
    }

    pub(super) fn waits(&self, token: RequestToken) -> bool {
        !self.replies.contains_key(&token)
    }

    /// Time passes, and the timer goes off whenever the machine asked for it.
    pub(super) fn pass(&mut self, ms: u64) {
        let until_ms = self.now.monotonic_ms + ms;
        loop {
            let next_ms =
                self.machine.next_deadline_ms().unwrap_or(until_ms).clamp(self.now.monotonic_ms, until_ms);
            self.now.wall_ms += i64::try_from(next_ms - self.now.monotonic_ms).unwrap();
            self.now.monotonic_ms = next_ms;
            self.effects(GroupCoordinator::tick);
            if next_ms == until_ms {
                return;
            }
        }
    }

    pub(super) fn expire(&mut self) {
        self.effects(GroupCoordinator::expire_offsets);
    }

    pub(super) fn topics_deleted(&mut self, topics: &[&str]) {
        let topics: Vec<Text> = topics.iter().copied().map(text).collect();
        self.effects(|machine, now, effects| machine.topics_deleted(now, &topics, effects));
    }

    pub(super) fn join_command(&mut self, group: &str, member: &str) -> Join {
        self.ids += 1;
        Join {
            group_id: text(group),
            member_id: text(member),
            group_instance_id: None,
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 20_000,
            protocol_type: text("consumer"),
            protocols: vec![Protocol { name: text("range"), metadata: subscription(&["t"]) }],
            client_id: text("client"),
            client_host: text("/127.0.0.1"),
            new_member_id: text(&format!("m{:04}", self.ids)),
            require_known_member_id: false,
            supports_skip_assignment: true,
        }
    }

    pub(super) fn join(&mut self, group: &str, member: &str) -> RequestToken {
        let command = self.join_command(group, member);
        self.send(Command::Join(command))
    }

    pub(super) fn joined(&mut self, token: RequestToken) -> JoinReply {
        match self.answer(token) {
            Reply::Join(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn sync(&mut self, group: &str, member: &str, generation: i32, to: &[&str]) -> RequestToken {
        let mut command = sync_command(group, member, generation);
        command.assignments = to.iter().map(|id| (text(id), Bytes::copy_from_slice(id.as_bytes()))).collect();
        self.send(Command::Sync(command))
    }

    pub(super) fn synced(&mut self, token: RequestToken) -> SyncReply {
        match self.answer(token) {
            Reply::Sync(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn beat(&mut self, group: &str, member: &str, generation: i32) -> ErrorCode {
        let command = Heartbeat {
            group_id: text(group),
            generation_id: generation,
            member_id: text(member),
            group_instance_id: None,
        };
        match self.call(Command::Heartbeat(command)) {
            Reply::Heartbeat(error) => error,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn leave(&mut self, group: &str, members: &[(&str, Option<&str>)]) -> Vec<ErrorCode> {
        let identity = |(member, instance): &(&str, Option<&str>)| MemberIdentity {
            member_id: text(member),
            group_instance_id: instance.map(text),
        };
        let command = Leave { group_id: text(group), members: members.iter().map(identity).collect() };
        match self.call(Command::Leave(command)) {
            Reply::Leave(reply) => {
                assert_eq!(reply.error, ErrorCode::None);
                reply.members.into_iter().map(|(_, error)| error).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// A stable group of this many members, each assigned its own id; the leader first. Their ids and the generation.
    pub(super) fn form(&mut self, group: &str, count: usize) -> (Vec<String>, i32) {
        let first = self.join(group, "");
        let mut reply = self.joined(first);
        assert_eq!(reply.error, ErrorCode::None);
        let leader = reply.member_id.to_string();
        let mut ids = vec![leader.clone()];
        let others: Vec<RequestToken> = (1..count).map(|_| self.join(group, "")).collect();
        if count > 1 {
            let token = self.join(group, &leader);
            reply = self.joined(token);
            for token in others {
                ids.push(self.joined(token).member_id.to_string());
            }
        }
        let generation = reply.generation_id;
        assert_eq!(reply.members.len(), count);
        let to: Vec<&str> = ids.iter().map(String::as_str).collect();
        let tokens: Vec<RequestToken> = ids
            .iter()
            .rev()
            .map(|id| self.sync(group, id, generation, if *id == leader { &to } else { &[] }))
            .collect();
        for (token, id) in tokens.into_iter().zip(ids.iter().rev()) {
            assert_eq!(self.synced(token).assignment, id.as_bytes());
        }
        (ids, generation)
    }

    pub(super) fn commit_offsets(&mut self, command: OffsetCommit) -> Vec<ErrorCode> {
        let reply = self.call(Command::OffsetCommit(command));
        errors_of(reply)
    }

    /// A commit by somebody who is no member.
    pub(super) fn commit_simple(&mut self, group: &str, offsets: &[(&str, i32, i64)]) -> Vec<ErrorCode> {
        let command = commit_command(group, offsets);
        self.commit_offsets(command)
    }

    pub(super) fn commit_as(&mut self, group: &str, member: &str, generation: i32, offset: i64) -> ErrorCode {
        let mut command = commit_command(group, &[("t", 0, offset)]);
        command.member_id = text(member);
        command.generation_id = generation;
        self.commit_offsets(command)[0]
    }

    /// Topic, partition, offset of everything committed.
    pub(super) fn fetched(&self, group: &str) -> Vec<(String, i32, i64)> {
        let topics = self.machine.fetch_offsets(&text(group), None, false).unwrap();
        let each = |topic: &FetchedTopic| {
            let name = topic.topic.to_string();
            topic.partitions.iter().map(move |p| (name.clone(), p.partition, p.offset)).collect::<Vec<_>>()
        };
        topics.iter().flat_map(each).collect()
    }

    pub(super) fn state(&self, group: &str) -> GroupState {
        self.machine.describe(group).unwrap().state
    }

    pub(super) fn listed(&self) -> Vec<String> {
        let groups = self.machine.list(&GroupFilter::default()).unwrap();
        groups.iter().map(|group| group.group_id.to_string()).collect()
    }

    pub(super) fn delete(&mut self, group: &str) -> ErrorCode {
        match self.call(Command::DeleteGroup { group_id: text(group) }) {
            Reply::DeleteGroup(error) => error,
            other => panic!("{other:?}"),
        }
    }

    /// The state that the log alone gives.
    pub(super) fn replayed(&self) -> GroupCoordinator {
        let mut machine = GroupCoordinator::new(config());
        for (offset, (producer, record)) in self.log.iter().enumerate() {
            let offset = i64::try_from(offset).unwrap();
            machine.apply(offset, *producer, &record.key, record.value.as_ref()).unwrap();
        }
        machine
    }

    /// Another node takes over: the log is replayed, soft state is gone.
    pub(super) fn fail_over(&mut self) {
        self.effects(|machine, _, effects| machine.resign(effects));
        self.appends.clear();
        self.machine = self.replayed();
        self.effects(GroupCoordinator::lead);
    }
}

pub(super) fn errors_of(reply: Reply) -> Vec<ErrorCode> {
    match reply {
        Reply::OffsetCommit(topics) => {
            topics.iter().flat_map(|topic| &topic.partitions).map(|(_, error)| *error).collect()
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn sync_command(group: &str, member: &str, generation: i32) -> Sync {
    Sync {
        group_id: text(group),
        generation_id: generation,
        member_id: text(member),
        group_instance_id: None,
        protocol_type: None,
        protocol_name: None,
        protocol_required: false,
        assignments: Vec::new(),
    }
}

pub(super) fn commit_command(group: &str, offsets: &[(&str, i32, i64)]) -> OffsetCommit {
    let one = |(topic, partition, offset): &(&str, i32, i64)| {
        let offset = OffsetToCommit {
            partition: *partition,
            offset: *offset,
            leader_epoch: -1,
            metadata: None,
            error: ErrorCode::None,
        };
        (text(topic), vec![offset])
    };
    OffsetCommit {
        group_id: text(group),
        generation_id: -1,
        member_id: text(""),
        group_instance_id: None,
        retention_ms: None,
        takes_member_epoch: true,
        transaction: None,
        topics: offsets.iter().map(one).collect(),
    }
}
