//! What goes into the machine and what comes out: commands, replies, effects. Plain data in Kafka's terms; the shell
//! converts them from and to the messages of each API version.

use bytes::Bytes;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use crate::consumer_group::{ConsumerHeartbeat, ConsumerHeartbeatReply};
use crate::share_group::{ShareHeartbeat, ShareHeartbeatReply, ShareStateCommand};
use crate::streams_group::{StreamsHeartbeat, StreamsHeartbeatReply};

/// The time of a step. Timeouts count on the monotonic clock, so that a jump of the wall clock expires nobody;
/// records and offsets carry the wall clock, because the next coordinator must understand them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back, of this process.
    pub monotonic_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: i64,
}

/// The shell's name of a request that waits for an answer. Each is answered exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestToken(pub u64);

/// The machine's name of an append that the shell was told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A record for the coordinator's log, in Kafka's own format. No value: a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorRecord {
    /// The key with its type in front.
    pub key: Bytes,
    /// The value with its version in front.
    pub value: Option<Bytes>,
}

/// The producer in whose transaction records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// Its producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
}

/// One batch to append. The shell answers with [`committed`](super::GroupCoordinator::committed) once every record is
/// committed and applied, or with [`failed`](super::GroupCoordinator::failed).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Names it.
    pub ticket: Ticket,
    /// Never empty; all or none.
    pub records: Vec<CoordinatorRecord>,
    /// Given: the batch is transactional.
    pub transaction: Option<Transaction>,
}

/// What the shell has to do after a step, in this order. Replies that depend on an append are held by the machine
/// until it is told of the append's fate; those here may go out at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Batches for the log, in order.
    pub appends: Vec<Append>,
    /// Answers that are true now.
    pub replies: Vec<(RequestToken, Reply)>,
}

/// A request that may change something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// JoinGroup.
    Join(Join),
    /// SyncGroup.
    Sync(Sync),
    /// Heartbeat.
    Heartbeat(Heartbeat),
    /// LeaveGroup.
    Leave(Leave),
    /// ConsumerGroupHeartbeat (KIP-848).
    ConsumerHeartbeat(Box<ConsumerHeartbeat>),
    /// ShareGroupHeartbeat (KIP-932).
    ShareHeartbeat(Box<ShareHeartbeat>),
    /// A change of a share group's share-partitions.
    ShareState(Box<ShareStateCommand>),
    /// StreamsGroupHeartbeat (KIP-1071).
    StreamsHeartbeat(Box<StreamsHeartbeat>),
    /// OffsetCommit and TxnOffsetCommit.
    OffsetCommit(OffsetCommit),
    /// OffsetDelete.
    OffsetDelete(OffsetDelete),
    /// One group of a DeleteGroups.
    DeleteGroup {
        /// The group.
        group_id: Text,
    },
}

/// The answer to a command, of its own kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To JoinGroup.
    Join(JoinReply),
    /// To SyncGroup.
    Sync(SyncReply),
    /// To Heartbeat.
    Heartbeat(ErrorCode),
    /// To LeaveGroup.
    Leave(LeaveReply),
    /// To ConsumerGroupHeartbeat.
    ConsumerHeartbeat(ConsumerHeartbeatReply),
    /// To ShareGroupHeartbeat.
    ShareHeartbeat(ShareHeartbeatReply),
    /// To a change of share-partitions.
    ShareState(ErrorCode),
    /// To StreamsGroupHeartbeat.
    StreamsHeartbeat(Box<StreamsHeartbeatReply>),
    /// To OffsetCommit and TxnOffsetCommit: one code a partition, in the order of the request.
    OffsetCommit(Vec<TopicResult>),
    /// To OffsetDelete.
    OffsetDelete(OffsetDeleteReply),
    /// To one group of DeleteGroups.
    DeleteGroup(ErrorCode),
}

/// A way of assignment that a member knows, with what it tells the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// Its name, for example `range`.
    pub name: Text,
    /// Opaque except for consumers, whose subscribed topics are read from it.
    pub metadata: Bytes,
}

/// A JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The group.
    pub group_id: Text,
    /// Empty at the first attempt.
    pub member_id: Text,
    /// Given by static members (KIP-345).
    pub group_instance_id: Option<Text>,
    /// Milliseconds without a heartbeat after which the member is removed.
    pub session_timeout_ms: i32,
    /// Milliseconds it may take to join again in a rebalance. Version 0 has none: the session timeout.
    pub rebalance_timeout_ms: i32,
    /// For example `consumer`.
    pub protocol_type: Text,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// The client id of the request's header, or empty.
    pub client_id: Text,
    /// As Kafka prints it: `/` and the address.
    pub client_host: Text,
    /// A member id never used before, `<group.instance.id or client id>-<uuid>`, made by the shell because it is random.
    pub new_member_id: Text,
    /// Since version 4 a member must come back with the id that it is given (KIP-394).
    pub require_known_member_id: bool,
    /// Since version 9 a returning static leader is told to skip the assignment (KIP-814).
    pub supports_skip_assignment: bool,
}

/// A member as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: Text,
    /// Given by static members.
    pub group_instance_id: Option<Text>,
    /// Of the chosen protocol.
    pub metadata: Bytes,
}

/// The answer to a JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinReply {
    /// Zero, or why not.
    pub error: ErrorCode,
    /// The generation, or -1.
    pub generation_id: i32,
    /// The group's.
    pub protocol_type: Option<Text>,
    /// The chosen one. Before version 7 it is empty where this is none.
    pub protocol_name: Option<Text>,
    /// The leader's member id.
    pub leader: Text,
    /// The leader need not assign.
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: Text,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
}

impl JoinReply {
    /// A refusal.
    pub fn refused(error: ErrorCode, member_id: Text) -> Self {
        Self {
            error,
            generation_id: -1,
            protocol_type: None,
            protocol_name: None,
            leader: Text::default(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }
    }
}

/// A SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// The group.
    pub group_id: Text,
    /// The generation that was joined.
    pub generation_id: i32,
    /// The member.
    pub member_id: Text,
    /// Given by static members.
    pub group_instance_id: Option<Text>,
    /// Since version 5.
    pub protocol_type: Option<Text>,
    /// Since version 5.
    pub protocol_name: Option<Text>,
    /// Since version 5 both of the above are mandatory (KIP-559).
    pub protocol_required: bool,
    /// From the leader: member id and what it is assigned.
    pub assignments: Vec<(Text, Bytes)>,
}

/// The answer to a SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncReply {
    /// Zero, or why not.
    pub error: ErrorCode,
    /// The group's.
    pub protocol_type: Option<Text>,
    /// The chosen one.
    pub protocol_name: Option<Text>,
    /// The member's own.
    pub assignment: Bytes,
}

impl SyncReply {
    /// A refusal.
    pub fn refused(error: ErrorCode) -> Self {
        Self { error, protocol_type: None, protocol_name: None, assignment: Bytes::new() }
    }
}

/// A Heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The group.
    pub group_id: Text,
    /// The member's generation.
    pub generation_id: i32,
    /// The member.
    pub member_id: Text,
    /// Given by static members.
    pub group_instance_id: Option<Text>,
}

/// A member of a LeaveGroup. An administrator removes a static member by its instance id alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberIdentity {
    /// Empty, if only the instance id is meant.
    pub member_id: Text,
    /// Given by static members.
    pub group_instance_id: Option<Text>,
}

/// A LeaveGroup; the single form before version 3 is one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leave {
    /// The group.
    pub group_id: Text,
    /// Who leaves.
    pub members: Vec<MemberIdentity>,
}

/// The answer to a LeaveGroup. Before version 3 the one member's error is the answer's, where that is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveReply {
    /// Of the whole request.
    pub error: ErrorCode,
    /// Each member with its own error, in the order of the request.
    pub members: Vec<(MemberIdentity, ErrorCode)>,
}

/// An offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// -1: not known.
    pub leader_epoch: i32,
    /// None is stored as empty.
    pub metadata: Option<Text>,
    /// An error that the shell found (no such topic or partition): it is answered and nothing is written.
    pub error: ErrorCode,
}

/// An OffsetCommit or TxnOffsetCommit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The group.
    pub group_id: Text,
    /// Negative: not a member.
    pub generation_id: i32,
    /// Empty: not a member.
    pub member_id: Text,
    /// Given by static members.
    pub group_instance_id: Option<Text>,
    /// Versions 2 to 4 of OffsetCommit: milliseconds to keep the offset. None (-1 on the wire): the broker's setting.
    pub retention_ms: Option<i64>,
    /// Since version 9 of OffsetCommit `generation_id` may be a member epoch: those who join by ConsumerGroupHeartbeat
    /// cannot commit by an older one.
    pub takes_member_epoch: bool,
    /// Given: a TxnOffsetCommit; the offsets count once the transaction commits. The shell has verified with the
    /// transaction coordinator that this partition of the offsets topic is part of it.
    pub transaction: Option<Transaction>,
    /// The offsets, by topic.
    pub topics: Vec<(Text, Vec<OffsetToCommit>)>,
}

/// The answer for a topic: partition and error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicResult {
    /// The topic.
    pub topic: Text,
    /// In the order of the request.
    pub partitions: Vec<(i32, ErrorCode)>,
}

/// An OffsetDelete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetDelete {
    /// The group.
    pub group_id: Text,
    /// Partitions with the error that the shell found already, or none.
    pub topics: Vec<TopicResult>,
}

/// The answer to an OffsetDelete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetDeleteReply {
    /// Of the whole request.
    pub error: ErrorCode,
    /// By topic; empty where the whole request failed.
    pub topics: Vec<TopicResult>,
}

impl Command {
    /// The group that it is about.
    pub fn group_id(&self) -> &Text {
        match self {
            Self::Join(command) => &command.group_id,
            Self::Sync(command) => &command.group_id,
            Self::Heartbeat(command) => &command.group_id,
            Self::Leave(command) => &command.group_id,
            Self::ConsumerHeartbeat(command) => &command.group_id,
            Self::ShareHeartbeat(command) => &command.group_id,
            Self::ShareState(command) => &command.group_id,
            Self::StreamsHeartbeat(command) => &command.group_id,
            Self::OffsetCommit(command) => &command.group_id,
            Self::OffsetDelete(command) => &command.group_id,
            Self::DeleteGroup { group_id } => group_id,
        }
    }

    /// The answer that refuses all of it with one code, whatever the shell found of single partitions: for example because
    /// this node is not the coordinator.
    pub fn refusal(&self, error: ErrorCode) -> Reply {
        match self {
            Self::Join(command) => Reply::Join(JoinReply::refused(error, command.member_id.clone())),
            Self::Sync(_) => Reply::Sync(SyncReply::refused(error)),
            Self::Heartbeat(_) => Reply::Heartbeat(error),
            Self::Leave(_) => Reply::Leave(LeaveReply { error, members: Vec::new() }),
            Self::ConsumerHeartbeat(_) => Reply::ConsumerHeartbeat(ConsumerHeartbeatReply::failed(error)),
            Self::ShareHeartbeat(_) => Reply::ShareHeartbeat(ShareHeartbeatReply::failed(error)),
            Self::ShareState(_) => Reply::ShareState(error),
            Self::StreamsHeartbeat(_) => {
                Reply::StreamsHeartbeat(Box::new(StreamsHeartbeatReply::failed(error)))
            }
            Self::OffsetCommit(command) => Reply::OffsetCommit(command.refused(error)),
            Self::OffsetDelete(_) => Reply::OffsetDelete(OffsetDeleteReply { error, topics: Vec::new() }),
            Self::DeleteGroup { .. } => Reply::DeleteGroup(error),
        }
    }
}

impl OffsetCommit {
    /// The answer with this code for every partition.
    fn refused(&self, error: ErrorCode) -> Vec<TopicResult> {
        let mut results = self.results(error);
        for (_, code) in results.iter_mut().flat_map(|topic| &mut topic.partitions) {
            *code = error;
        }
        results
    }

    /// The answer with this code for every partition that has none of its own.
    pub(crate) fn results(&self, error: ErrorCode) -> Vec<TopicResult> {
        let one = |offset: &OffsetToCommit| {
            (offset.partition, if offset.error == ErrorCode::None { error } else { offset.error })
        };
        let topic = |(topic, offsets): &(Text, Vec<OffsetToCommit>)| TopicResult {
            topic: topic.clone(),
            partitions: offsets.iter().map(one).collect(),
        };
        self.topics.iter().map(topic).collect()
    }
}
